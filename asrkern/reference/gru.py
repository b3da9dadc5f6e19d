"""The gated recurrent unit, row by row and step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.reference._recurrent import run_layer


def gru_cell(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> tuple[Tensor]:
    """One step of torch.nn.GRU's formula: the reset gate multiplies after the matmul."""
    x_r, x_z, x_n = gates_x.chunk(3, -1)
    h_r, h_z, h_n = gates_h.chunk(3, -1)
    r = torch.sigmoid(x_r + h_r)
    z = torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,)


def gru(
    input: Tensor,
    weights,
    weights_reverse=None,
    h0: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor]:
    """Reference of :func:`asrkern.ops.gru`; same arguments."""
    return run_layer(gru_cell, input, weights, weights_reverse, (h0,), lengths, batch_sizes, batch_first)
