"""The tiles of :func:`asrkern.ops.masked_conv2d`, for those who compute a row in parts."""

from __future__ import annotations

from typing import NamedTuple


class ConvTile(NamedTuple):
    """A tile of the operation, along time.

    outputs: frames that are computed together, the first tile beginning at output frame 0; inputs: frames, from the
    window of its first output on, that the tile reads. The bits of its outputs depend on these alone.
    """

    outputs: int
    inputs: int


def conv_tile(kernel_size: int, stride: int = 1) -> ConvTile:
    """The tiles in which :func:`masked_conv2d` computes time on the CPU. They depend on these two arguments alone.

    The result for any run of whole tiles is bit for bit the one for the whole row. A kernel of 5 to 16 taps for each
    frame of stride takes 32-point transforms (of each phase of the stride): kernels/conv/cpu/masked_conv2d_overlap_save.h.
    One of three without stride may take Winograd's, if it has enough channels: masked_conv2d_winograd.h there. Others are
    computed directly, each frame by itself.

    Args:
        kernel_size, stride: of the convolution along time, in frames.
    """
    if 5 * stride <= kernel_size <= 16 * stride:
        taps = -(-kernel_size // stride)
        return ConvTile(33 - taps, 32 * stride)
    if (kernel_size, stride) == (3, 1):
        return ConvTile(6, 8)
    return ConvTile(1, max(kernel_size, stride))
