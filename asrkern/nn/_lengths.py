"""Valid frames of a padded batch, from its lengths."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from asrkern.ops._autograd import transforming


def values_are_known(x: Tensor) -> bool:
    """Whether values may be looked at: a GPU would have to be waited for; a trace, vmap or a fake tensor has none."""
    return x.device.type == "cpu" and not (torch.compiler.is_compiling() or transforming() or is_fake(x))


def check_lengths(lengths: Tensor, batch_size: int, steps: int | None = None) -> None:
    """Raise unless lengths holds one integer per row; with steps, values on the CPU are to be from 0 to steps.

    Raises:
        ValueError: another shape or dtype, or a value out of range.
    """
    if lengths.dim() != 1 or lengths.is_floating_point() or lengths.shape[0] != batch_size:
        raise ValueError(
            f"lengths: expected integers of shape [{batch_size}], "
            f"received {lengths.dtype} of shape {list(lengths.shape)}"
        )
    if steps is None or not batch_size or not values_are_known(lengths):
        return
    low, high = int(lengths.min()), int(lengths.max())
    if low < 0 or high > steps:
        raise ValueError(f"lengths: expected 0 to {steps} (T), received {low} to {high}")


def frame_mask(lengths: Tensor, batch_size: int, steps: int, device: torch.device) -> Tensor:
    """Boolean mask [batch_size, steps], True at the frames before each row's length.

    Raises:
        ValueError: lengths is not an integer tensor of shape [batch_size].
    """
    check_lengths(lengths, batch_size)
    return torch.arange(steps, device=device) < lengths.to(device)[:, None]


def zero_padding(input: Tensor, lengths: Tensor | None, layout: str) -> Tensor:
    """input with the frames beyond each length set to zero; layout names its axes, such as "NCFT"."""
    if lengths is None:
        return input
    batch, time = layout.index("N"), layout.index("T")
    mask = frame_mask(lengths, input.shape[batch], input.shape[time], input.device)
    # Not a product: padding may hold inf or NaN.
    return input.masked_fill(~by_layout(mask, layout), 0)


def reverse_frames(input: Tensor, lengths: Tensor, layout: str) -> Tensor:
    """input with the frames of each row in reverse order up to its length; those beyond stay where they are."""
    time = layout.index("T")
    steps = torch.arange(input.shape[time], device=input.device)
    mirrored = lengths.to(input.device)[:, None] - 1 - steps
    source = torch.where(mirrored >= 0, mirrored, steps)
    return input.gather(time, by_layout(source, layout).expand(input.shape))


def by_layout(frames: Tensor, layout: str) -> Tensor:
    """frames [N, T] with the axes of layout, those that it lacks of size 1."""
    batch, time = layout.index("N"), layout.index("T")
    shape = [1] * len(layout)
    shape[batch], shape[time] = frames.shape
    return (frames if batch < time else frames.t()).reshape(shape)
