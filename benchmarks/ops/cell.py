"""A step of an LSTM cell by stock torch and by asrkern, on the same weights, also frozen."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern import ops
from asrkern.nn import LSTMCell, freeze
from benchmarks.ops.case import Case
from benchmarks.shapes import CellShape


class Cell(Case):
    def __init__(self, shape: CellShape) -> None:
        torch.manual_seed(0)
        size = shape.hidden_size
        self.cell = torch.nn.LSTMCell(size, size)
        self.x, self.h, self.c = (torch.randn(shape.batch, size) for _ in range(3))
        self.inputs = [self.x, self.h, self.c, *self.cell.parameters()]

    def stock(self, *, training: bool) -> Tensor:
        return torch.cat(self.cell(self.x, (self.h, self.c)))

    def asrkern(self, *, training: bool) -> Tensor:
        return torch.cat(ops.lstm_cell(self.x, list(self.cell.parameters()), self.h, self.c))

    def output_gradient(self) -> Tensor:
        return torch.randn(2 * self.h.shape[0], self.h.shape[1])


class FrozenCell(Cell):
    def __init__(self, shape: CellShape) -> None:
        super().__init__(shape)
        self.frozen = LSTMCell(shape.hidden_size, shape.hidden_size)
        self.frozen.load_state_dict(self.cell.state_dict())
        freeze(self.frozen)

    def asrkern(self, *, training: bool) -> Tensor:
        return torch.cat(self.frozen(self.x, (self.h, self.c)))
