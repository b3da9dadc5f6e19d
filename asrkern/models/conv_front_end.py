"""The two masked convolutions over spectrograms with which DeepSpeech2 and its descendants begin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern.models._checks import check_spectrograms
from asrkern.nn import MaskConv

CHANNELS = 32
KERNELS = ((41, 11), (21, 11))  # (frequency, time) of the two convolutions
STRIDES = ((2, 2), (2, 1))

ConvPadding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: ConvPadding = ((0, 0), (0, 0))
SAME_PADDING: ConvPadding = ((20, 5), (10, 5))


def conv_length(length: int, axis: int, padding: ConvPadding) -> int:
    """Length of one axis (0 frequency, 1 time) after the convolutions; 0 or less if the input is too short."""
    for kernel, stride, pad in zip(KERNELS, STRIDES, padding, strict=True):
        length = (length + 2 * pad[axis] - kernel[axis]) // stride[axis] + 1
    return length


def conv_output_size(n_freq: int, padding: ConvPadding) -> int:
    """Features per frame after the convolutions: 1312 of 161 bins with padding and 672 without."""
    return CHANNELS * conv_length(n_freq, 0, padding)


class FrameGeometry(NamedTuple):
    """Where the frames of the output are in the input: frame t is centred on frame ``offset + t * step``."""

    step: int
    offset: float


def frame_geometry(stack: Iterable[nn.Module]) -> FrameGeometry:
    """The geometry of convolutions over [N, C, F, T], by strides and paddings. Other modules keep frames as they are."""
    step, offset = 1, 0.0
    for module in stack:
        if isinstance(module, nn.Conv2d):
            offset += step * ((module.kernel_size[1] - 1) / 2 - int(module.padding[1]))
            step *= module.stride[1]
    return FrameGeometry(step, offset)


def make_conv(padding: ConvPadding, stats: str = "valid") -> MaskConv:
    """Conv2d, BatchNorm2d and Hardtanh(0, 20), twice; keys ``seq_module.{0,1,3,4}.*``.

    Args:
        padding: (frequency, time) of each convolution.
        stats: as in :class:`asrkern.nn.MaskConv`.
    """
    modules: list[nn.Module] = []
    for index, pad in enumerate(padding):
        modules += [
            nn.Conv2d(CHANNELS if index else 1, CHANNELS, KERNELS[index], STRIDES[index], pad),
            nn.BatchNorm2d(CHANNELS),
            nn.Hardtanh(0, 20, inplace=True),
        ]
    return MaskConv(nn.Sequential(*modules), stats)


def check_conv_input(
    features: Tensor, lengths: Lengths, n_freq: int, padding: ConvPadding, minimum_length: int = 0
) -> tuple[Tensor, Tensor]:
    """features as [N, 1, F, T] and lengths as a tensor, checked.

    Raises:
        TypeError: features is no tensor, or lengths are not integers.
        ValueError: a shape, a dtype or a length does not fit, or T is too short for the convolutions.
    """
    x = check_spectrograms(features, n_freq)
    frames = x.shape[-1]
    if conv_length(frames, 1, padding) < 1:
        raise ValueError(
            f"features: {frames} frames are too few for the convolutions, received {list(features.shape)}"
        )
    return x, as_lengths("lengths", lengths, x.shape[0], frames, minimum_length)


def conv_frames(conv: MaskConv, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run :func:`make_conv`'s stack.

    Args:
        x: [N, 1, F, T].
        lengths: integers [N], frames per row.

    Returns:
        [T', N, CHANNELS * F'], zero beyond each output length, and the output lengths [N], int64.
    """
    x, output_lengths = conv(x, input_lengths=lengths)
    return as_frames(x), output_lengths


def as_frames(x: Tensor) -> Tensor:
    """[N, C, F, T] as [T, N, C * F]."""
    return x.flatten(1, 2).permute(2, 0, 1).contiguous()
