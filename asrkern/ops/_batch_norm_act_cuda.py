"""Launches the Triton kernels of batch_norm_act; imported when the first one runs."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from asrkern._triton import batch_norm_act as kernels
from asrkern.ops._launch import block, device_of, empty, launch

#: Values of a tile: 16 a thread of 4 warps.
TILE = 2048
#: Channels-last tensors are cut into about this many pieces: several programs for each multiprocessor.
PROGRAMS = 1024
#: Pieces that are merged at once.
MERGED = 1024


class _Matrix:
    """A tensor as kernels/triton/batch_norm_act.py sees it, and how it is cut into tiles and pieces."""

    def __init__(self, input: Tensor, layout: str) -> None:
        size = dict(zip(layout, input.shape))
        self.time_last = layout[-1] == "T"
        self.batch_first = layout[0] != "T"
        self.batch, self.channels = size.get("N", 1), size["C"]
        self.inner, self.time = size.get("F", 1), size["R" if layout == "RC" else "T"]
        self.rows = self.batch * (self.channels * self.inner if self.time_last else self.time)
        self.width = self.time if self.time_last else self.channels
        self.columns = block(self.width, (128, 256, 512))
        self.tile_rows = min(TILE // self.columns, triton.next_power_of_2(self.rows))
        if self.time_last:
            # The rows of a piece have one channel.
            self.piece_rows = min(self.tile_rows, triton.next_power_of_2(self.inner))
            self.pieces = self.batch * triton.cdiv(self.inner, self.piece_rows)
            self.piece_blocks, self.rows_per_piece = self.channels, self.piece_rows
        else:
            self.piece_rows, self.piece_blocks = self.tile_rows, triton.cdiv(self.channels, self.columns)
            tiles = triton.cdiv(self.rows, self.piece_rows)
            self.rows_per_piece = self.piece_rows * triton.cdiv(tiles * self.piece_blocks, PROGRAMS)
            self.pieces = triton.cdiv(self.rows, self.rows_per_piece)

    @property
    def size(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, self.inner, self.time

    @property
    def tile_grid(self) -> tuple[int, int]:
        return triton.cdiv(self.rows, self.tile_rows), triton.cdiv(self.width, self.columns)

    @property
    def piece_grid(self) -> tuple[int, int]:
        return self.pieces, self.piece_blocks

    def constants(self, rows: int) -> dict[str, int | bool]:
        return {
            "TIME_LAST": self.time_last,
            "BATCH_FIRST": self.batch_first,
            "ROWS": rows,
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
    input: Tensor, matrix: _Matrix, lengths: Tensor | None, count_padding: bool
) -> tuple[Tensor, Tensor]:
    mean, deviation = (empty((matrix.channels, matrix.pieces), input, torch.float32) for _ in range(2))
    count = empty((matrix.pieces,), input, torch.float32)
    launch(
        kernels.piece_statistics, matrix.piece_grid,
        input, lengths, mean, deviation, count, *matrix.size, matrix.rows_per_piece,
        COUNT_PADDING=count_padding, **matrix.constants(matrix.piece_rows),
    )  # fmt: skip
    return merge_statistics(mean, deviation, count)


def normalise(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, lengths: Tensor | None,
    layout: str, count_padding: bool, eps: float, low: float, high: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(output, count) of contiguous input with float32 statistics."""
    matrix = _Matrix(input, layout)
    output, count = empty(input.shape, input, input.dtype), empty((), input, torch.int64)
    launch(
        kernels.normalise, matrix.tile_grid,
        input, _float(weight), _float(bias), mean, var, lengths, output, count, *matrix.size, eps, low, high,
        COUNT_PADDING=count_padding, **matrix.constants(matrix.tile_rows),
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
            mean, var = _statistics(input, _Matrix(input, layout), lengths, count_padding)
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
    matrix = _Matrix(input, layout)
    with device_of(input):
        sums, dots = (empty((matrix.channels, matrix.pieces), input, torch.float32) for _ in range(2))
        launch(
            kernels.piece_gradients, matrix.piece_grid,
            grad_output, input, weight, bias, mean, var, lengths, sums, dots,
            *matrix.size, matrix.rows_per_piece, eps, low, high, **matrix.constants(matrix.piece_rows),
        )  # fmt: skip
        grad_weight, grad_bias, average, slope = (
            empty((matrix.channels,), input, torch.float32) for _ in range(4)
        )
        if not training:
            average = slope = None
        launch(
            kernels.merge_gradients, (matrix.channels,),
            sums, dots, var, lengths, grad_weight, grad_bias, average, slope,
            matrix.pieces, matrix.batch, matrix.inner, matrix.time, eps,
            COUNT_PADDING=count_padding, BLOCK=min(MERGED, triton.next_power_of_2(matrix.pieces)),
        )  # fmt: skip
        grad_input = empty(input.shape, input, input.dtype)
        launch(
            kernels.input_gradient, matrix.tile_grid,
            grad_output, input, weight, bias, mean, var, lengths, average, slope, grad_input,
            *matrix.size, eps, low, high, COUNT_PADDING=count_padding, **matrix.constants(matrix.tile_rows),
        )  # fmt: skip
    return grad_input, grad_weight, grad_bias
