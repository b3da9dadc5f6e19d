"""torch.nn.GRU on :func:`asrkern.ops.gru`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from asrkern import ops
from asrkern.nn._dynamo import allow_gru

allow_gru()


class GRU(torch.nn.GRU):
    """Drop-in replacement of torch.nn.GRU: same constructor, state_dict and return values.

    On top of torch's:

    * ``lengths=`` takes a padded batch as it is, in any order and with zero lengths; nothing is packed. Each
      direction runs over the valid frames only, output beyond a length is zero, and the final hidden state is
      the one at the row's own end (h0 where the length is zero).
    * ``merge="sum"`` adds the two directions of the output, which then has ``hidden_size`` features. It
      applies to the last layer's output only, so that the weights of upper layers keep torch's shapes; h_n
      is not merged.

    In eval mode and fp32 a row's result is bit for bit independent of the other rows and of its padding.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype:
            as in torch.nn.GRU.
        merge: "concat" (torch's) or "sum".

    Raises:
        ValueError: merge is neither "concat" nor "sum".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        merge: str = "concat",
    ) -> None:
        if merge not in ("concat", "sum"):
            raise ValueError(f'merge: expected "concat" or "sum", received {merge!r}')
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.merge = merge

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run the layers.

        Args:
            input: [T, N, input_size], or [N, T, input_size] if batch_first, or [T, input_size] for one
                sequence, or a PackedSequence.
            hx: initial hidden state [num_layers * directions, N, hidden_size] ([num_layers * directions,
                hidden_size] for one sequence), rows in the order of the batch before packing; zeros if None.
            lengths: integers [N], the valid frames of each row of a padded batch, on any device; all T if
                None.

        Returns:
            output, shaped as input with directions * hidden_size features (hidden_size if merge is "sum"),
            packed if input is; and h_n, shaped as hx.

        Raises:
            ValueError: input or hx has the wrong shape, or lengths comes with packed or unbatched input.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths: expected None with a PackedSequence, which has its own")
            data, batch_sizes, sorted_indices, unsorted_indices = input
            # Tracing must not read the value; the operation checks it then.
            batch_size = None if torch.compiler.is_compiling() else int(batch_sizes[0])
            self._check(data, 2, hx, 3, batch_size)
            if hx is not None:
                hx = self.permute_hidden(hx, sorted_indices)
            output, h_n = self._layers(data, hx, batch_sizes=batch_sizes)
            packed = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
            return packed, self.permute_hidden(h_n, unsorted_indices)
        if input.dim() == 2:
            if lengths is not None:
                raise ValueError("lengths: expected None with unbatched input [T, input_size]")
            self._check(input, 2, hx, 2, None)
            batch_dim = 0 if self.batch_first else 1
            hx = None if hx is None else hx.unsqueeze(1)
            output, h_n = self._layers(input.unsqueeze(batch_dim), hx)
            return output.squeeze(batch_dim), h_n.squeeze(1)
        self._check(input, 3, hx, 3, input.shape[0 if self.batch_first else 1])
        return self._layers(input, hx, lengths=lengths)

    def flatten_parameters(self) -> None:
        """Nothing to do: the kernels read each weight where it is."""

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", merge={self.merge}" if self.merge != "concat" else "")

    def _check(
        self, input: Tensor, input_dim: int, hx: Tensor | None, hx_dim: int, batch_size: int | None
    ) -> None:
        if input.dim() != input_dim:
            raise ValueError(
                f"input: expected 3 dimensions (2 unbatched or packed), received {list(input.shape)}"
            )
        if input.shape[-1] != self.input_size:
            raise ValueError(
                f"input: expected {self.input_size} features (input_size), received {list(input.shape)}"
            )
        if hx is None:
            return
        layers = self.num_layers * (2 if self.bidirectional else 1)
        if hx.dim() != hx_dim:
            raise ValueError(f"hx: expected {hx_dim} dimensions with this input, received {list(hx.shape)}")
        expected = [layers, *([] if hx_dim == 2 else [hx.shape[1] if batch_size is None else batch_size])]
        expected.append(self.hidden_size)
        if list(hx.shape) != expected:
            raise ValueError(f"hx: expected shape {expected}, received {list(hx.shape)}")

    def _weights(self, layer: int, suffix: str = "") -> ops.GRUWeights:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
        return ops.GRUWeights(*(getattr(self, f"{name}_l{layer}{suffix}") for name in names))

    def _layers(
        self,
        x: Tensor,
        hx: Tensor | None,
        lengths: Tensor | None = None,
        batch_sizes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        directions = 2 if self.bidirectional else 1
        finals = []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0:
                x = torch.nn.functional.dropout(x, self.dropout, self.training)
            x, h_n = ops.gru(
                x,
                self._weights(layer),
                self._weights(layer, "_reverse") if self.bidirectional else None,
                None if hx is None else hx[layer * directions : (layer + 1) * directions],
                lengths=lengths,
                batch_sizes=batch_sizes,
                batch_first=self.batch_first and batch_sizes is None,
            )
            finals.append(h_n)
        if self.merge == "sum" and self.bidirectional:
            x = x[..., : self.hidden_size] + x[..., self.hidden_size :]
        return x, torch.cat(finals)
