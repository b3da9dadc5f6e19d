"""Bidirectional recurrent layers by stock torch and by asrkern, on the same weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.ops.case import Case
from benchmarks.shapes import RecurrentShape, ragged_lengths


class Recurrent(Case):
    """One kind of cell.

    Args:
        kind: torch's layer.
        operation: asrkern's function for one layer.
        ragged: whether lengths differ; stock torch then packs, otherwise it runs on the padded batch.
    """

    def __init__(
        self, kind: type[torch.nn.RNNBase], operation: Callable, shape: RecurrentShape, ragged: bool
    ) -> None:
        torch.manual_seed(0)
        self.shape, self.operation = shape, operation
        self.module = kind(shape.hidden_size, shape.hidden_size, shape.layers, bidirectional=True)
        self.x = torch.randn(shape.steps, shape.batch, shape.hidden_size)
        self.lengths = torch.tensor(ragged_lengths(shape.batch, shape.steps)) if ragged else None
        self.inputs = [self.x, *self.module.parameters()]

    def stock(self, *, training: bool) -> Tensor:
        if self.lengths is None:
            return self.module(self.x)[0]
        packed, _ = self.module(pack_padded_sequence(self.x, self.lengths, enforce_sorted=False))
        return pad_packed_sequence(packed, total_length=self.shape.steps)[0]

    def asrkern(self, *, training: bool) -> Tensor:
        y = self.x
        for layer in range(self.shape.layers):
            weights = self.module.all_weights[2 * layer : 2 * layer + 2]
            y = self.operation(y, *weights, lengths=self.lengths)[0]
        return y

    def output_gradient(self) -> Tensor:
        return torch.randn(self.shape.steps, self.shape.batch, 2 * self.shape.hidden_size)
