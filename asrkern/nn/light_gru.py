"""The light gated recurrent unit, with the interface of asrkern's other recurrent layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from asrkern import ops
from asrkern.nn._lengths import frame_mask, reverse_frames
from asrkern.nn._recurrent import RecurrentLayers
from asrkern.nn.batch_norm import MaskedBatchNorm1d


class _LightParameters(nn.Module):
    """The parameters of the layers, named as torch.nn.GRU names them."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        if not bias:
            raise ValueError("bias: expected True, since BatchNorm's shift is the bias, received False")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            features = hidden_size * len(directions) if layer else input_size
            for suffix in directions:
                for name, columns in (("weight_ih", features), ("weight_hh", hidden_size)):
                    weight = torch.empty(2 * hidden_size, columns, device=device, dtype=dtype)
                    setattr(self, f"{name}_l{layer}{suffix}", nn.Parameter(weight))
                norm = MaskedBatchNorm1d(2 * hidden_size, layout="TNC", device=device, dtype=dtype)
                setattr(self, f"batch_norm_l{layer}{suffix}", norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise weights as in the paper: Glorot for the input, orthogonal matrices for the state."""
        for name, weight in self.named_parameters():
            for gate in weight.chunk(2) if name.startswith("weight") else ():
                (nn.init.orthogonal_ if "_hh_" in name else nn.init.xavier_uniform_)(gate)

    def extra_repr(self) -> str:
        """The options of the layer as repr shows them."""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bidirectional={self.bidirectional}"


class LightGRU(RecurrentLayers, _LightParameters):
    """Light GRU (Ravanelli et al. 2018): no reset gate, ReLU candidate, BatchNorm of the projected input.

    z = σ(BN(W_z x) + U_z h),  c = ReLU(BN(W_c x) + U_c h),  h ← z h + (1 − z) c

    Called as :class:`asrkern.nn.GRU`: lengths, packed and unbatched input, hx, merge. There is a kernel for the
    projections and BatchNorm only; the rest is composed of torch's operations, in a Python loop over the frames. In
    eval mode a row is independent of its batch and padding up to rounding.

    Keys: ``weight_ih_l0`` [2·hidden_size, features] and ``weight_hh_l0`` [2·hidden_size, hidden_size] (gates in the
    order z, c), ``batch_norm_l0.*``, then ``_l0_reverse`` and further layers as torch.nn.GRU's.

    Args:
        input_size, hidden_size, num_layers, batch_first, dropout, bidirectional, device, dtype: as in torch.nn.GRU.
        bias: True; BatchNorm's shift is the bias.
        merge: "concat" or "sum", as in :class:`asrkern.nn.GRU`.
        stats: frames that count for BatchNorm in training, "valid" or "padded".

    Raises:
        ValueError: bias, merge or stats is none of these.
    """

    def __init__(self, *args: Any, stats: str = "valid", **kwargs: Any) -> None:
        if stats not in ("valid", "padded"):
            raise ValueError(f'stats: expected "valid" or "padded", received {stats!r}')
        super().__init__(*args, **kwargs)
        for module in self.children():
            module.stats = stats  # type: ignore[assignment]  # of a MaskedBatchNorm1d

    def _layer(  # type: ignore[override]
        self,
        layer: int,
        x: Tensor,
        *states: Tensor,
        lengths: Tensor | None = None,
        batch_sizes: Tensor | None = None,
        batch_first: bool = False,
    ) -> tuple[Tensor, ...]:
        if batch_sizes is not None:
            x, lengths = pad_packed_sequence(PackedSequence(x, batch_sizes))
            output, final = self._layer(layer, x, *states, lengths=lengths)
            return pack_padded_sequence(output, lengths).data, final
        x = x.transpose(0, 1) if batch_first else x
        steps, rows, _ = x.shape
        if not steps or not rows:
            raise ValueError(
                f"input: expected at least one row and one frame, received shape {tuple(x.shape)}"
            )
        if lengths is None:
            lengths = torch.full((rows,), steps)
        lengths = lengths.to(x.device)
        valid = frame_mask(lengths, rows, steps, x.device).t()[..., None]
        outputs, finals = [], []
        for direction, suffix in enumerate(("", "_reverse") if self.bidirectional else ("",)):
            weight_ih, weight_hh, norm = (
                getattr(self, f"{name}_l{layer}{suffix}") for name in ("weight_ih", "weight_hh", "batch_norm")
            )
            gates = norm(ops.linear(x, weight_ih), lengths)
            weight_hh = weight_hh.to(gates.dtype)
            h = states[0][direction].to(gates.dtype) if states else gates.new_zeros(rows, self.hidden_size)
            if suffix:
                gates = reverse_frames(gates, lengths, "TNC")
            output, final = _run(gates, weight_hh, h, valid)
            outputs.append(reverse_frames(output, lengths, "TNC") if suffix else output)
            finals.append(final)
        output = torch.cat(outputs, -1)
        return (output.transpose(0, 1) if batch_first else output), torch.stack(finals)


def _run(gates: Tensor, weight_hh: Tensor, h: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """gates [T, N, 2H] of the input, h [N, H], valid [T, N, 1] → output [T, N, H], zero where not valid; final h."""
    outputs = []
    for gate, keep in zip(gates, valid):
        z, candidate = (gate + nn.functional.linear(h, weight_hh)).chunk(2, -1)
        z = z.sigmoid()
        h = torch.where(keep, z * h + (1 - z) * candidate.relu(), h)
        outputs.append(h)
    return torch.stack(outputs).masked_fill(~valid, 0), h
