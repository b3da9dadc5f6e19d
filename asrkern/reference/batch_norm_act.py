"""BatchNorm over the valid frames of a padded batch, then an activation, then the mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def batch_norm_act(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Any,
    running_var: Any,
    lengths: Tensor | None = None,
    *,
    layout: str,
    training: bool,
    stats: str = "valid",
    eps: float = 1e-5,
    activation: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reference of :func:`asrkern.ops.batch_norm_act`; same arguments and return values."""
    channel = layout.index("C")
    valid = torch.ones_like(input, dtype=torch.bool)
    if lengths is not None:
        batch, time = layout.index("N"), layout.index("T")
        frames = torch.arange(input.shape[time]) < lengths.view(-1, 1)  # [N, T]
        shape = [1] * input.dim()
        shape[batch], shape[time] = frames.shape
        frames = frames if batch < time else frames.t()
        valid = frames.reshape(shape).expand(input.shape)
    # Channels first, so that boolean indexing leaves the [C, count] values of the valid frames.
    x = input.movedim(channel, 0).flatten(1)
    mask = valid.movedim(channel, 0).flatten(1)
    counted = torch.ones_like(mask) if stats == "padded" else mask
    count = counted[0].sum()
    if training:
        values = x[counted].view(x.shape[0], -1)
        mean, var = values.mean(1), values.var(1, unbiased=False)
    else:
        mean, var = running_mean, running_var
    y = (x - mean[:, None]) / torch.sqrt(var[:, None] + eps)
    y = y if weight is None else y * weight[:, None]
    y = y if bias is None else y + bias[:, None]
    y = y if activation is None else y.clamp(*activation)
    y = y.masked_fill(~mask, 0)
    moved = input.movedim(channel, 0).shape
    return y.view(moved).movedim(0, channel), mean, var, count
