"""What a benchmark of an operation is made of: operands of one shape, and the operation by stock torch and by asrkern."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks._timing import relative_error


class Case(abc.ABC):
    """Random operands, always the same.

    Attributes:
        inputs: the tensors that gradients are taken of.
    """

    inputs: list[Tensor]

    @abc.abstractmethod
    def stock(self, *, training: bool) -> Tensor:
        """The output, as a user of torch computes it."""

    @abc.abstractmethod
    def asrkern(self, *, training: bool) -> Tensor:
        """The same by asrkern."""

    @abc.abstractmethod
    def output_gradient(self) -> Tensor:
        """What gradients are propagated from, of the output's shape."""

    def error(self, expected: Sequence[Tensor], actual: Sequence[Tensor]) -> float:
        """Of an output, or of the gradients of all inputs: see :func:`benchmarks._timing.relative_error`."""
        return relative_error(expected, actual)


def gradient_without_kinks(before: Tensor, activation: tuple[float, float] | None) -> Tensor:
    """Random, but zero where rounding may decide on which side of the activation's kinks a value is.

    Args:
        before: what the activation is applied to.
    """
    gradient = torch.randn(before.shape)
    for bound in activation or ():
        gradient.masked_fill_((before - bound).abs() < 1e-4, 0)
    return gradient
