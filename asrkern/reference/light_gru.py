"""The light gated recurrent unit (Ravanelli et al. 2018), row by row and step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.reference._recurrent import run_layer


def light_gru_cell(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> tuple[Tensor]:
    """One step: gates_x are the normalised projections of the input."""
    z, candidate = (gates_x + gates_h).chunk(2, -1)
    z = torch.sigmoid(z)
    return (z * h + (1 - z) * torch.relu(candidate),)


def light_gru(
    input: Tensor,
    weights,
    weights_reverse=None,
    h0: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """One layer of :class:`asrkern.nn.LightGRU`: input [T, N, features] → output, h_n.

    weights: (weight_ih, weight_hh, weight, bias, running_mean, running_var), the last four BatchNorm's. In training
    the statistics are those of the projections of all valid frames.
    """
    steps, rows, _ = input.shape
    ends = [steps] * rows if lengths is None else lengths.tolist()

    def folded(direction):
        """weight_ih and a bias that do what projection and BatchNorm do; weight_hh without a bias."""
        weight_ih, weight_hh, weight, bias, mean, var = direction
        if training:
            frames = torch.cat([input[:end, row] for row, end in enumerate(ends)]) @ weight_ih.t()
            mean, var = frames.mean(0), frames.var(0, unbiased=False)
        scale = weight / torch.sqrt(var + eps)
        return weight_ih * scale[:, None], weight_hh, bias - mean * scale, None

    weights = folded(weights)
    weights_reverse = None if weights_reverse is None else folded(weights_reverse)
    return run_layer(light_gru_cell, input, weights, weights_reverse, (h0,), lengths, None, False)
