"""What :class:`asrkern.nn.GRU` and :class:`asrkern.nn.LSTM` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from asrkern._lengths import Lengths, as_lengths
from asrkern.nn._dynamo import allow_rnn
from asrkern.nn._packed import PackedCache, can_pack
from asrkern.ops._prepacked import PackedWeights
from asrkern.ops._recurrent import RecurrentWeights

State = Tensor | tuple[Tensor, ...]

if TYPE_CHECKING:
    # What stands behind it among the bases.
    _Layers = torch.nn.GRU
else:
    _Layers = object


class RecurrentLayers(_Layers):
    """First among the bases, before torch's layer: torch's has the parameters, this one computes."""

    # An operation of asrkern.ops for one layer, called with its weights and initial states.
    _operation: Callable[..., tuple[Tensor, ...]]
    # The same for inference, with what _pack makes of each weight_hh.
    _prepacked_operation: Callable[..., tuple[Tensor, ...]]
    _pack: Callable[..., Tensor]
    # How many tensors hx is a tuple of. A single one is passed without a tuple.
    _state_count = 1

    def __new__(cls, *_: object, **__: object) -> RecurrentLayers:
        # In __new__, so that layers that are copied or unpickled do it, too.
        allow_rnn()
        return super().__new__(cls)

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
        self._packed = PackedCache()

    def forward(  # type: ignore[override]  # takes lengths, too
        self, input: Tensor | PackedSequence, hx: State | None = None, lengths: Lengths | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run the layers.

        Args:
            input: [T, N, input_size], or [N, T, input_size] if batch_first, or [T, input_size] for one
                sequence, or a PackedSequence.
            hx: initial state [num_layers * directions, N, hidden_size] ([num_layers * directions,
                hidden_size] for one sequence), rows in the order of the batch before packing; zeros if None.
                For an LSTM a pair of these, (h0, c0).
            lengths: integers [N], the valid frames of each row of a padded batch, on any device; all T if
                None.

        Returns:
            output, shaped as input with directions * hidden_size features (hidden_size if merge is "sum"),
            packed if input is; and the final state, shaped as hx.

        Raises:
            TypeError: lengths are not integers.
            ValueError: input, hx or lengths has the wrong shape, or lengths comes with packed or unbatched input.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths: expected None with a PackedSequence, which has its own")
            data, batch_sizes, sorted_indices, unsorted_indices = input
            batch_size: int | None
            if sorted_indices is not None:
                batch_size = sorted_indices.shape[0]
            else:
                # Tracing must not read the value. The operation checks it when it runs.
                batch_size = None if torch.compiler.is_compiling() else int(batch_sizes[0])
            states = self._check(data, 2, hx, 3, batch_size)
            output, finals = self._layers(data, _reorder(states, sorted_indices), batch_sizes=batch_sizes)
            packed = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
            return packed, self._as_hx(_reorder(finals, unsorted_indices))
        if input.dim() == 2:
            if lengths is not None:
                raise ValueError("lengths: expected None with unbatched input [T, input_size]")
            states = self._check(input, 2, hx, 2, None)
            batch_dim = 0 if self.batch_first else 1
            output, finals = self._layers(input.unsqueeze(batch_dim), [s.unsqueeze(1) for s in states])
            return output.squeeze(batch_dim), self._as_hx([final.squeeze(1) for final in finals])
        states = self._check(input, 3, hx, 3, input.shape[0 if self.batch_first else 1])
        lengths = as_lengths("lengths", lengths, input.shape[0 if self.batch_first else 1])
        output, finals = self._layers(input, states, lengths=lengths)
        return output, self._as_hx(finals)

    def flatten_parameters(self) -> None:
        """Forget the packed copies of the weights; the next call makes them again."""
        # torch's constructor calls this before _packed is there.
        if "_packed" in self.__dict__:
            self._packed.clear()

    def extra_repr(self) -> str:
        """The options of the layer as repr shows them."""
        return super().extra_repr() + (f", merge={self.merge}" if self.merge != "concat" else "")

    def _as_hx(self, states: list[Tensor]) -> State:
        return tuple(states) if self._state_count > 1 else states[0]

    def _check(
        self, input: Tensor, input_dim: int, hx: State | None, hx_dim: int, batch_size: int | None
    ) -> list[Tensor]:
        """The tensors of hx; none if hx is None."""
        if input.dim() != input_dim:
            raise ValueError(
                f"input: expected 3 dimensions (2 unbatched or packed), received {list(input.shape)}"
            )
        if input.shape[-1] != self.input_size:
            raise ValueError(
                f"input: expected {self.input_size} features (input_size), received {list(input.shape)}"
            )
        if hx is None:
            return []
        count = self._state_count
        if isinstance(hx, Tensor) != (count == 1) or (count > 1 and len(hx) != count):
            expected = "a Tensor" if count == 1 else f"a tuple of {count} tensors"
            received = "a Tensor" if isinstance(hx, Tensor) else f"a {type(hx).__name__} of {len(hx)}"
            raise ValueError(f"hx: expected {expected}, received {received}")
        states: list[Any] = [hx] if isinstance(hx, Tensor) else list(hx)
        layers = self.num_layers * (2 if self.bidirectional else 1)
        for index, state in enumerate(states):
            name = "hx" if count == 1 else f"hx[{index}]"
            if state.dim() != hx_dim:
                raise ValueError(
                    f"{name}: expected {hx_dim} dimensions with this input, received {list(state.shape)}"
                )
            rows = [] if hx_dim == 2 else [states[0].shape[1] if batch_size is None else batch_size]
            shape = [layers, *rows, self.hidden_size]
            if list(state.shape) != shape:
                raise ValueError(f"{name}: expected shape {shape}, received {list(state.shape)}")
        return states

    def _weights(self, layer: int, suffix: str = "") -> RecurrentWeights:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
        return RecurrentWeights(*(getattr(self, f"{name}_l{layer}{suffix}") for name in names))

    def _packed_direction(self, key: str, packed_hh: Tensor) -> PackedWeights:
        """For ``l0``, ``l0_reverse``, …: the weights with a packed weight_hh, and their scales if there are any."""
        return PackedWeights(
            getattr(self, f"weight_ih_{key}"),
            getattr(self, f"weight_ih_{key}_scale", None),
            packed_hh,
            getattr(self, f"weight_hh_{key}_scale", None),
            getattr(self, f"bias_ih_{key}", None),
            getattr(self, f"bias_hh_{key}", None),
        )

    def _layer(self, layer: int, x: Tensor, *states: Tensor, **options: object) -> tuple[Tensor, ...]:
        """One layer: output and final states."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        weights: list[Any] = [self._weights(layer, suffix) for suffix in suffixes]
        tensors = [t for direction in weights for t in direction if t is not None]
        operation = self._operation
        if not self.training and can_pack(x, *tensors):
            operation = self._prepacked_operation
            weights = [
                self._packed_direction(
                    f"l{layer}{suffix}", self._packed.get(f"{layer}{suffix}", w.weight_hh, self._pack)
                )
                for suffix, w in zip(suffixes, weights)
            ]
        return operation(x, weights[0], weights[1] if self.bidirectional else None, *states, **options)

    def _layers(
        self,
        x: Tensor,
        states: list[Tensor],
        lengths: Tensor | None = None,
        batch_sizes: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        directions = 2 if self.bidirectional else 1
        finals: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0:
                x = torch.nn.functional.dropout(x, self.dropout, self.training)
            x, *final = self._layer(
                layer,
                x,
                *(state[layer * directions : (layer + 1) * directions] for state in states),
                lengths=lengths,
                batch_sizes=batch_sizes,
                batch_first=self.batch_first and batch_sizes is None,
            )
            finals.append(final)
        if self.merge == "sum" and self.bidirectional:
            x = x[..., : self.hidden_size] + x[..., self.hidden_size :]
        return x, [torch.cat(final) for final in zip(*finals)]


def _reorder(states: list[Tensor], indices: Tensor | None) -> list[Tensor]:
    return states if indices is None else [state.index_select(1, indices) for state in states]
