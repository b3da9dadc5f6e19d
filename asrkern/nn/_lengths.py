"""Valid frames of a padded batch, from its lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def frame_mask(lengths: Tensor, batch_size: int, steps: int, device: torch.device) -> Tensor:
    """Boolean mask [batch_size, steps], True at the frames before each row's length.

    Raises:
        ValueError: lengths is not an integer tensor of shape [batch_size].
    """
    if lengths.dim() != 1 or lengths.is_floating_point() or lengths.shape[0] != batch_size:
        raise ValueError(
            f"lengths: expected integers of shape [{batch_size}], "
            f"received {lengths.dtype} of shape {list(lengths.shape)}"
        )
    return torch.arange(steps, device=device) < lengths.to(device)[:, None]


def zero_padding(input: Tensor, lengths: Tensor | None, layout: str) -> Tensor:
    """input with the frames beyond each length set to zero; layout names its axes, such as "NCFT"."""
    if lengths is None:
        return input
    batch, time = layout.index("N"), layout.index("T")
    mask = frame_mask(lengths, input.shape[batch], input.shape[time], input.device)
    shape = [1] * input.dim()
    shape[batch], shape[time] = input.shape[batch], input.shape[time]
    mask = mask if batch < time else mask.t()
    # Not a product: padding may hold inf or NaN.
    return input.masked_fill(~mask.reshape(shape), 0)
