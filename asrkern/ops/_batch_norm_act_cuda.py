"""Launches the Triton kernels of batch_norm_act; imported when the first one runs."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from asrkern._triton import batch_norm_act as kernels
from asrkern.ops._launch import block, device_of, empty, launch

#: Bytes of a tile: 64 for each thread of 4 warps. With time last each value counts 4 bytes, whatever its dtype, since
#: frames are loaded one by one.
TILE = 8192
#: Pieces are made so long that about this many programs run, several on each multiprocessor.
PROGRAMS = 1024
#: How many pieces are merged at once.
MERGED = 1024


class _Tiling:
    """A tensor as kernels/norm/triton/batch_norm_act.py sees it, and how it is cut into tiles and pieces."""

    def __init__(self, input: Tensor, layout: str) -> None:
        size = dict(zip(layout, input.shape))
        self.time_last = layout[-1] == "T"
        self.batch_first = layout[0] != "T"
        self.batch, self.channels = size.get("N", 1), size["C"]
        self.inner, self.time = size.get("F", 1), size["R" if layout == "RC" else "T"]
        values = TILE // (4 if self.time_last else input.element_size())
        rows, width = (self.inner, self.time) if self.time_last else (self.time, self.channels)
        self.columns = block(width, (128, 256, 512))
        self.rows = min(values // self.columns, triton.next_power_of_2(rows))
        self.channel_blocks = self.channels if self.time_last else triton.cdiv(self.channels, self.columns)
        if self.batch >= 2**16 or self.channel_blocks >= 2**16:
            raise ValueError(
                f"input: expected fewer than 65536 rows and channels on a GPU, received shape {tuple(input.shape)}"
            )
        row_blocks = triton.cdiv(rows, self.rows)
        if self.time_last:
            self.tiles, self.row_pieces = row_blocks * triton.cdiv(self.time, self.columns), row_blocks
            self.frames_per_piece = self.time
        else:
            self.tiles = row_blocks
            programs = row_blocks * self.channel_blocks * self.batch
            self.frames_per_piece = self.rows * triton.cdiv(programs, PROGRAMS)
            self.row_pieces = triton.cdiv(self.time, self.frames_per_piece)
        self.pieces = self.batch * self.row_pieces

    @property
    def size(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, self.inner, self.time

    @property
    def tile_grid(self) -> tuple[int, int, int]:
        return self.tiles, self.channel_blocks, self.batch

    @property
    def piece_grid(self) -> tuple[int, int, int]:
        return self.row_pieces, self.channel_blocks, self.batch

    @property
    def constants(self) -> dict[str, int | bool]:
        return {
            "TIME_LAST": self.time_last,
            "BATCH_FIRST": self.batch_first,
            "ROWS": self.rows,
            "COLUMNS": self.columns,
        }


def _float(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.float().contiguous()


def merge_statistics(mean: Tensor, deviation: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, [channels], of pieces: mean and deviation [channels, pieces], count [pieces]."""
    channels, pieces = mean.shape
    result = [empty((channels,), mean, torch.float32) for _ in range(2)]
    launch(
        kernels.merge_statistics,
        (channels,),
        mean,
        deviation,
        count,
        *result,
        pieces,
        BLOCK=min(MERGED, triton.next_power_of_2(pieces)),
    )
    return result[0], result[1]


def _statistics(
    input: Tensor, tiling: _Tiling, lengths: Tensor | None, count_padding: bool
) -> tuple[Tensor, Tensor]:
    mean, deviation = (empty((tiling.channels, tiling.pieces), input, torch.float32) for _ in range(2))
    count = empty((tiling.pieces,), input, torch.float32)
    launch(
        kernels.piece_statistics, tiling.piece_grid,
        input, lengths, mean, deviation, count, *tiling.size, tiling.frames_per_piece,
        COUNT_PADDING=count_padding, **tiling.constants,
    )  # fmt: skip
    return merge_statistics(mean, deviation, count)


def normalise(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, lengths: Tensor | None,
    layout: str, count_padding: bool, eps: float, low: float, high: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(output, count) of contiguous input with float32 statistics."""
    tiling = _Tiling(input, layout)
    output, count = empty(input.shape, input, input.dtype), empty((), input, torch.int64)
    launch(
        kernels.normalise, tiling.tile_grid,
        input, _float(weight), _float(bias), mean, var, lengths, output, count, *tiling.size, eps, low, high,
        COUNT_PADDING=count_padding, **tiling.constants,
    )  # fmt: skip
    return output, count


def forward(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    lengths: Tensor | None, layout: str, training: bool, count_padding: bool, eps: float, low: float, high: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """``torch.ops.asrkern.batch_norm_act`` for float32, float16 and bfloat16; mean and var are float32."""
    input = input.contiguous()
    with device_of(input):
        if training:
            mean, var = _statistics(input, _Tiling(input, layout), lengths, count_padding)
        else:
            mean, var = (value.to(torch.float32, copy=True) for value in (running_mean, running_var))
        output, count = normalise(
            input, weight, bias, mean, var, lengths, layout, count_padding, eps, low, high
        )
    return output, mean, var, count


def backward(
    grad_output: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    lengths: Tensor | None, layout: str, training: bool, count_padding: bool, eps: float, low: float, high: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """``torch.ops.asrkern.batch_norm_act_backward``; the gradients of weight and bias are float32."""
    input, grad_output = input.contiguous(), grad_output.contiguous()
    weight, bias = _float(weight), _float(bias)
    tiling = _Tiling(input, layout)
    with device_of(input):
        sums, dots = (empty((tiling.channels, tiling.pieces), input, torch.float32) for _ in range(2))
        launch(
            kernels.piece_gradients, tiling.piece_grid,
            grad_output, input, weight, bias, mean, var, lengths, sums, dots,
            *tiling.size, tiling.frames_per_piece, eps, low, high, **tiling.constants,
        )  # fmt: skip
        grad_weight, grad_bias, average, slope = (
            empty((tiling.channels,), input, torch.float32) for _ in range(4)
        )
        if not training:
            average = slope = None
        launch(
            kernels.merge_gradients, (tiling.channels,),
            sums, dots, var, lengths, grad_weight, grad_bias, average, slope,
            tiling.pieces, tiling.batch, tiling.inner, tiling.time, eps,
            COUNT_PADDING=count_padding, BLOCK=min(MERGED, triton.next_power_of_2(tiling.pieces)),
        )  # fmt: skip
        grad_input = empty(input.shape, input, input.dtype)
        launch(
            kernels.input_gradient, tiling.tile_grid,
            grad_output, input, weight, bias, mean, var, lengths, average, slope, grad_input,
            *tiling.size, eps, low, high, COUNT_PADDING=count_padding, **tiling.constants,
        )  # fmt: skip
    return grad_input, grad_weight, grad_bias
