"""torch.nn.GRUCell and LSTMCell on :func:`asrkern.ops.gru_cell` and :func:`asrkern.ops.lstm_cell`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asrkern import ops
from asrkern.ops._common import check_shape, check_tensor
from asrkern.ops._recurrent import RecurrentWeights

if TYPE_CHECKING:
    # What stands behind it among the bases.
    _Cell = torch.nn.RNNCellBase
else:
    _Cell = object


class RecurrentCell(_Cell):
    """First among the bases, before torch's cell: torch's has the parameters, this one computes."""

    # How many states a cell has, an LSTM's in a tuple.
    _state_count = 1
    # Of asrkern.ops.
    _operation: Callable[..., Any]

    def _rows(self, input: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Input and states, checked, as [N, ·]; states of zeros if there are none."""
        check_tensor("input", input, (1, 2))
        batch = input.shape[:-1]
        check_shape("input", input, (*batch, self.input_size))
        names = ("hx",) if self._state_count == 1 else ("hx[0]", "hx[1]")
        for name, state in zip(names, states):
            check_shape(name, state, (*batch, self.hidden_size))
        if not states:
            states = (input.new_zeros(*batch, self.hidden_size),) * len(names)
        return tuple(t if batch else t[None] for t in (input, *states))

    def _step(self, x: Tensor, *states: Tensor) -> Any:
        """The operation."""
        weights = RecurrentWeights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return self._operation(x, weights, *states)


class OneState(RecurrentCell):
    """A cell with a GRU's state."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step.

        Args:
            input: [N, input_size] or [input_size].
            hx: the state before, [N, hidden_size] or [hidden_size]; zeros if None.

        Returns:
            The state after it, shaped as hx.

        Raises:
            TypeError: input or hx is not a tensor of floating-point numbers.
            ValueError: input or hx has the wrong shape.
        """
        x, h = self._rows(input, () if hx is None else (hx,))
        h = self._step(x, h)
        return h if input.dim() == 2 else h[0]


class TwoStates(RecurrentCell):
    """A cell with an LSTM's states."""

    _state_count = 2

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            input: [N, input_size] or [input_size].
            hx: h and c before it, [N, hidden_size] or [hidden_size] each; zeros if None.

        Returns:
            h and c after it, shaped as hx.

        Raises:
            TypeError: input or a state is not a tensor of floating-point numbers, or hx is not a pair.
            ValueError: input or a state has the wrong shape.
        """
        if hx is not None and (isinstance(hx, Tensor) or len(hx) != 2):
            received = type(hx).__name__ if isinstance(hx, Tensor) else f"{len(hx)} values"
            raise TypeError(f"hx: expected a pair (h, c), received {received}")
        x, h, c = self._rows(input, () if hx is None else tuple(hx))
        h, c = self._step(x, h, c)
        return (h, c) if input.dim() == 2 else (h[0], c[0])


class GRUCell(OneState, torch.nn.GRUCell):
    """Drop-in replacement of torch.nn.GRUCell: same constructor, state_dict, arguments and return values.

    On the CPU in float32 a row's result is bit for bit independent of the other rows.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.GRUCell.
    """

    _operation = staticmethod(ops.gru_cell)


class LSTMCell(TwoStates, torch.nn.LSTMCell):
    """Drop-in replacement of torch.nn.LSTMCell: same constructor, state_dict, arguments and return values.

    On the CPU in float32 a row's result is bit for bit independent of the other rows.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.LSTMCell.
    """

    _operation = staticmethod(ops.lstm_cell)
