"""Convolution over (frequency, time), per-channel affine, activation, max-pool, time mask."""

from __future__ import annotations

import torch
from torch import Tensor


def _keep(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero the frames of x: [N, C, F, T] beyond each row's length."""
    if lengths is None:
        return x
    padding = torch.arange(x.shape[-1]) >= lengths.view(-1, 1)
    return x.masked_fill(padding[:, None, None, :], 0)


def masked_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    output_lengths: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    activation: tuple[float, float] | None = None,
    pool: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Reference of :func:`asrkern.ops.masked_conv2d`; same arguments."""
    if output_lengths is None and lengths is not None:
        kernel = weight.shape[-1]
        output_lengths = ((lengths + 2 * padding[1] - kernel) // stride[1] + 1).clamp(min=0)
        output_lengths = output_lengths.masked_fill(lengths == 0, 0)
    y = torch.nn.functional.conv2d(_keep(input, lengths), weight, bias, stride, padding, groups=groups)
    y = y if scale is None else y * scale[:, None, None]
    y = y if shift is None else y + shift[:, None, None]
    y = y if activation is None else y.clamp(*activation)
    y = torch.nn.functional.max_pool2d(_keep(y, output_lengths), pool)
    return _keep(y, None if output_lengths is None else output_lengths // pool[1])
