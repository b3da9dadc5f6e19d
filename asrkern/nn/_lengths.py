"""Valid frames of a padded batch, from its lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern._lengths import Lengths, as_lengths


def frame_mask(lengths: Lengths, batch_size: int, steps: int, device: torch.device) -> Tensor:
    """Boolean mask [batch_size, steps], True at the frames before each row's length.

    Raises:
        TypeError: lengths are not integers.
        ValueError: lengths is not [batch_size], or holds a value that is not from 0 to steps.
    """
    lengths = as_lengths("lengths", lengths, batch_size, steps)
    return torch.arange(steps, device=device) < lengths.to(device)[:, None]


def zero_padding(input: Tensor, lengths: Tensor | None, layout: str) -> Tensor:
    """input with zeros beyond each length. layout: a letter for each axis, such as "NCFT"."""
    if lengths is None:
        return input
    batch, time = layout.index("N"), layout.index("T")
    mask = frame_mask(lengths, input.shape[batch], input.shape[time], input.device)
    # masked_fill, not a product: padding may hold inf or NaN.
    return input.masked_fill(~by_layout(mask, layout), 0)


def reverse_frames(input: Tensor, lengths: Tensor, layout: str) -> Tensor:
    """input with the frames of each row reversed up to its length; frames beyond stay where they are."""
    time = layout.index("T")
    steps = torch.arange(input.shape[time], device=input.device)
    mirrored = lengths.to(input.device)[:, None] - 1 - steps
    source = torch.where(mirrored >= 0, mirrored, steps)
    return input.gather(time, by_layout(source, layout).expand(input.shape))


def by_layout(frames: Tensor, layout: str) -> Tensor:
    """frames [N, T] with the axes of layout; axes that it does not have get size 1."""
    batch, time = layout.index("N"), layout.index("T")
    shape = [1] * len(layout)
    shape[batch], shape[time] = frames.shape
    return (frames if batch < time else frames.t()).reshape(shape)
