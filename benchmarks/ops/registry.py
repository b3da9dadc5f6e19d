"""The operations that ``run.py`` times, and at which shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch

from asrkern import ops
from benchmarks.ops.attention import Attention
from benchmarks.ops.batch_norm_act import BatchNormAct
from benchmarks.ops.case import Case
from benchmarks.ops.cell import Cell, FrozenCell
from benchmarks.ops.linear import Linear, LinearQuantized
from benchmarks.ops.masked_conv2d import MaskedConv2d
from benchmarks.ops.recurrent import Recurrent
from benchmarks.ops.speller import Speller
from benchmarks.ops.transformer import TransformerLayer
from benchmarks.shapes import (
    ATTENTION,
    BATCH_NORM_ACT,
    CELL,
    CELL_TRAINING,
    CONV_BLOCKS,
    GRU_INFERENCE,
    GRU_TRAINING,
    LINEAR,
    LSTM_INFERENCE,
    LSTM_TRAINING,
    MASKED_CONV2D,
    SPELLER,
    TRANSFORMER,
    RecurrentShape,
)

# By the name of the row, what makes its operands.
Rows = dict[str, Callable[[], Case]]


class Operation(NamedTuple):
    """Rows that are timed in inference, and rows whose forward and backward are timed together, if there is one."""

    inference: Rows
    training: Rows


def _rows(case: Callable[[Any], Case], shapes: Iterable[Any]) -> Rows:
    return {str(shape): partial(case, shape) for shape in shapes}


def _recurrent(kind: type[torch.nn.RNNBase], operation: Callable, shapes: Iterable[RecurrentShape]) -> Rows:
    return {
        f"{shape}, {'ragged' if ragged else 'equal'}": partial(Recurrent, kind, operation, shape, ragged)
        for ragged in (False, True)
        for shape in shapes
    }


OPERATIONS = {
    "gru": Operation(
        _recurrent(torch.nn.GRU, ops.gru, GRU_INFERENCE), _recurrent(torch.nn.GRU, ops.gru, GRU_TRAINING)
    ),
    "lstm": Operation(
        _recurrent(torch.nn.LSTM, ops.lstm, LSTM_INFERENCE),
        _recurrent(torch.nn.LSTM, ops.lstm, LSTM_TRAINING),
    ),
    "lstm_cell": Operation(_rows(Cell, CELL), _rows(Cell, CELL_TRAINING)),
    "lstm_cell_prepacked": Operation(_rows(FrozenCell, CELL), {}),
    "linear": Operation(_rows(Linear, LINEAR), _rows(Linear, LINEAR)),
    "linear_quantized": Operation(_rows(LinearQuantized, LINEAR), {}),
    "batch_norm_act": Operation(_rows(BatchNormAct, BATCH_NORM_ACT), _rows(BatchNormAct, BATCH_NORM_ACT)),
    "masked_conv2d": Operation(
        _rows(MaskedConv2d, MASKED_CONV2D + CONV_BLOCKS), _rows(MaskedConv2d, MASKED_CONV2D)
    ),
    "speller": Operation(_rows(Speller, SPELLER), {}),
    "attention": Operation(_rows(Attention, ATTENTION), {}),
    "transformer": Operation(_rows(TransformerLayer, TRANSFORMER), {}),
}
