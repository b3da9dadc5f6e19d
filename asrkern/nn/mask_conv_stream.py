"""A masked convolution stack over an utterance that arrives in chunks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from asrkern import ops
from asrkern.nn._conv_stages import Stage, folded, is_fusible, stages_of
from asrkern.nn.batch_norm import uses_batch_stats
from asrkern.nn.mask_conv import MaskConv
from asrkern.ops import ConvTile, conv_tile

# For each convolution the input frames [1, C, F, frames] that later outputs need; None before the first frame.
ConvState = tuple[Tensor | None, ...]


class MaskConvStream:
    """Runs a :class:`MaskConv` on one utterance in chunks. On the CPU the bits are those of the whole utterance.

    The operation computes frames in tiles (:func:`asrkern.ops.conv_tile`), and the last bits of a frame depend on all
    that its tile reads. So frames are returned in whole tiles, each as soon as its input is there.

    Args:
        conv: a :class:`MaskConv` in eval mode.
        low_latency: each frame is returned as soon as its window is there. It is the whole utterance's to within the
            rounding of a convolution (1e-6 of the largest value), which depends on the chunks. A step computes whole
            tiles nevertheless, so that short chunks take more time.

    Raises:
        ValueError: a part of the stack is not a plain convolution, with or without a batch norm on running statistics
            and a clamping activation.
    """

    def __init__(self, conv: MaskConv, *, low_latency: bool = False) -> None:
        self.low_latency, self.conv = low_latency, conv
        self._stages()

    def _stages(self) -> list[Stage]:
        """Those of the stack as it is now: its layers may have been edited or replaced."""
        stages = stages_of(self.conv.seq_module)
        for stage in stages:
            if stage.module is None or not is_fusible(stage.module):
                raise ValueError(f"conv: expected plain convolutions, received {stage.module or stage.norm}")
            if stage.norm is not None and uses_batch_stats(stage.norm):
                raise ValueError(f"conv: expected running statistics (eval mode), received {stage.norm}")
        return stages

    def start(self) -> ConvState:
        """The state before the first frame."""
        return (None,) * len(self._stages())

    def step(self, state: ConvState, x: Tensor, *, last: bool = False) -> tuple[Tensor, ConvState]:
        """Feed the next frames.

        Args:
            state: of :meth:`start` or the step before; it stays as it is.
            x: [1, C, F, frames], any number of frames, none included.
            last: the utterance ends here.

        Returns:
            The frames that are complete, [1, C', F', any number], and the state after them.
        """
        following = []
        for stage, held in zip(self._stages(), state, strict=True):
            x, held = self._advance(stage, held, x, last)
            following.append(held)
        return x, tuple(following)

    def frames_needed(self, frame: int) -> int:
        """How many input frames have to come until output frame ``frame`` is returned, while the utterance goes on."""
        for stage in reversed(self._stages()):
            _, stride, padding = _geometry(stage.module)
            tile = self._tile(stage.module)
            frame = frame // tile.outputs * tile.outputs * stride - padding + tile.inputs - 1
        return frame + 1

    def centre(self, frame: int) -> float:
        """The input frame, or the middle of two, at the centre of output frame ``frame``."""
        position = float(frame)
        for stage in reversed(self._stages()):
            kernel_size, stride, padding = _geometry(stage.module)
            position = position * stride - padding + (kernel_size - 1) / 2
        return position

    @property
    def period(self) -> int:
        """After how many output frames :meth:`frames_needed`, relative to the frame, repeats itself."""
        return math.lcm(*(self._tile(stage.module).outputs for stage in self._stages()))

    def _tile(self, conv: Any) -> ConvTile:
        """What is returned together."""
        kernel_size, stride, _ = _geometry(conv)
        return ConvTile(1, max(kernel_size, stride)) if self.low_latency else conv_tile(kernel_size, stride)

    def _advance(
        self, stage: Stage, held: Tensor | None, x: Tensor, last: bool
    ) -> tuple[Tensor, Tensor | None]:
        """One convolution: its next outputs, and the input that later outputs need."""
        kernel_size, stride, padding = _geometry(stage.module)
        tile = self._tile(stage.module)
        if held is not None:
            x = torch.cat([held, x], -1)
        elif x.shape[-1]:
            x = nn.functional.pad(x, (padding, 0))
        else:
            # Without input there is no output, even if the padding alone would fill a window.
            return _no_frames(stage.module, x), None
        if last:
            x = window = nn.functional.pad(x, (0, padding))
            outputs = max(0, (x.shape[-1] - kernel_size) // stride + 1)
        else:
            tiles = max(0, (x.shape[-1] - tile.inputs) // (tile.outputs * stride) + 1)
            outputs = tiles * tile.outputs
            window = x[..., : (outputs - tile.outputs) * stride + tile.inputs]
        if not outputs:
            return _no_frames(stage.module, x), x
        conv = stage.module
        y = ops.masked_conv2d(
            window,
            conv.weight,
            conv.bias,
            *((None, None) if stage.norm is None else folded(stage.norm)),
            stride=conv.stride,
            padding=(conv.padding[0], 0),
            activation=stage.activation,
        )
        # A copy: a view would keep all of x in memory.
        return y, x[..., outputs * stride :].clone()


def _geometry(conv: Any) -> tuple[int, int, int]:
    """Kernel size, stride and padding along time."""
    return conv.kernel_size[1], conv.stride[1], conv.padding[1]


def _no_frames(conv: Any, x: Tensor) -> Tensor:
    bins = (x.shape[2] + 2 * conv.padding[0] - conv.kernel_size[0]) // conv.stride[0] + 1
    return x.new_empty(1, conv.out_channels, bins, 0)
