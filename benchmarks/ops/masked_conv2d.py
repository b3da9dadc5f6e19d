"""The models' convolutions, with folded BatchNorm, Hardtanh(0, 20), pool and mask, by stock torch and by asrkern."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asrkern import ops
from benchmarks.ops.case import Case, gradient_without_kinks
from benchmarks.shapes import ConvShape, ragged_lengths

ACTIVATION = (0.0, 20.0)


class MaskedConv2d(Case):
    """Stock masks with one vectorised comparison."""

    def __init__(self, shape: ConvShape) -> None:
        torch.manual_seed(0)
        self.shape = shape
        taps = shape.in_channels * shape.kernel[0] * shape.kernel[1]
        self.lengths = torch.tensor(ragged_lengths(shape.batch, shape.frames))
        self.output_lengths = (self.lengths + 2 * shape.padding[1] - shape.kernel[1]) // shape.stride[1] + 1
        self.inputs = [
            mask(torch.randn(shape.batch, shape.in_channels, shape.bins, shape.frames), self.lengths),
            taps**-0.5 * torch.randn(shape.out_channels, shape.in_channels, *shape.kernel),
            torch.randn(shape.out_channels),
            torch.rand(shape.out_channels) + 0.5,
            torch.randn(shape.out_channels),
        ]

    def convolve(self) -> Tensor:
        x, weight, bias, scale, shift = self.inputs
        # The affine map folded into the weights, as one would for inference.
        weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        return torch.nn.functional.conv2d(x, weight, bias, self.shape.stride, self.shape.padding)

    def stock(self, *, training: bool) -> Tensor:
        y = mask(self.convolve().clamp(*ACTIVATION), self.output_lengths)
        if self.shape.pool == (1, 1):
            return y
        return mask(
            torch.nn.functional.max_pool2d(y, self.shape.pool), self.output_lengths // self.shape.pool[1]
        )

    def asrkern(self, *, training: bool) -> Tensor:
        return ops.masked_conv2d(
            *self.inputs,
            lengths=self.lengths,
            output_lengths=self.output_lengths,
            stride=self.shape.stride,
            padding=self.shape.padding,
            activation=ACTIVATION,
            pool=self.shape.pool,
        )

    @torch.no_grad()
    def output_gradient(self) -> Tensor:
        return gradient_without_kinks(self.convolve(), ACTIVATION)

    def error(self, expected: Sequence[Tensor], actual: Sequence[Tensor]) -> float:
        if len(expected) == len(self.inputs):
            # Stock has a gradient for the padding too, which it reads as the zeros that are there.
            expected = [mask(expected[0], self.lengths), *expected[1:]]
        return super().error(expected, actual)


def mask(x: Tensor, lengths: Tensor) -> Tensor:
    """Zero x [N, C, F, T] beyond each row's length."""
    beyond = torch.arange(x.shape[-1]) >= lengths[:, None]
    return x.masked_fill(beyond[:, None, None], 0)
