"""Long short-term memory, row by row and step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.reference._recurrent import run_layer


def lstm_cell(gates_x: Tensor, gates_h: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of torch.nn.LSTM's formula, which needs h in gates_h only."""
    i, f, g, o = (gates_x + gates_h).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def lstm(
    input: Tensor,
    weights,
    weights_reverse=None,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Reference of :func:`asrkern.ops.lstm`; same arguments."""
    return run_layer(lstm_cell, input, weights, weights_reverse, (h0, c0), lengths, batch_sizes, batch_first)
