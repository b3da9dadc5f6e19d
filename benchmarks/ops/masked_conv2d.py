"""The front end's convolutions: stock torch against asrkern.

    pytest benchmarks/bench_masked_conv2d.py

Convolution, folded BatchNorm, Hardtanh(0, 20) and mask; stock masks with one vectorised comparison. Outputs
and gradients are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from asrkern import ops
from benchmarks.shapes import MASKED_CONV2D, ConvShape, ragged_lengths

ACTIVATION = (0.0, 20.0)


class Case:
    """Random operands of one shape, and the operation by both backends."""

    def __init__(self, shape: ConvShape) -> None:
        torch.manual_seed(0)
        self.shape = shape
        taps = shape.in_channels * shape.kernel[0] * shape.kernel[1]
        self.lengths = torch.tensor(ragged_lengths(shape.batch, shape.frames))
        self.output_lengths = (self.lengths + 2 * shape.padding[1] - shape.kernel[1]) // shape.stride[1] + 1
        self.inputs = [
            self.mask(torch.randn(shape.batch, shape.in_channels, shape.bins, shape.frames), self.lengths),
            taps**-0.5 * torch.randn(shape.out_channels, shape.in_channels, *shape.kernel),
            torch.randn(shape.out_channels),
            torch.rand(shape.out_channels) + 0.5,
            torch.randn(shape.out_channels),
        ]

    @staticmethod
    def mask(x: Tensor, lengths: Tensor) -> Tensor:
        beyond = torch.arange(x.shape[-1]) >= lengths[:, None]
        return x.masked_fill(beyond[:, None, None], 0)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        # The affine map folded into the weights, as one would for inference.
        weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        return torch.nn.functional.conv2d(x, weight, bias, self.shape.stride, self.shape.padding)

    def stock(self, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = self.convolve(x, weight, bias, scale, shift).clamp(*ACTIVATION)
        return self.mask(y, self.output_lengths)

    def asrkern(self, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return ops.masked_conv2d(
            x,
            weight,
            bias,
            scale,
            shift,
            lengths=self.lengths,
            output_lengths=self.output_lengths,
            stride=self.shape.stride,
            padding=self.shape.padding,
            activation=ACTIVATION,
        )

    def output_gradient(self) -> Tensor:
        """Random, but zero where rounding may decide on which side of the activation's kinks a value is."""
        with torch.no_grad():
            before = self.convolve(*self.inputs)
        gradient = torch.randn(before.shape)
        for bound in ACTIVATION:
            gradient.masked_fill_((before - bound).abs() < 1e-4, 0)
        return gradient


@pytest.mark.parametrize("backend", ["stock", "asrkern"])
@pytest.mark.parametrize("shape", MASKED_CONV2D, ids=str)
def test_forward(benchmark, shape, backend):
    benchmark.group = f"masked_conv2d forward, {shape}"
    case = Case(shape)
    with torch.inference_mode():
        actual, expected = case.asrkern(*case.inputs), case.stock(*case.inputs)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)
        benchmark(getattr(case, backend), *case.inputs)


@pytest.mark.parametrize("backend", ["stock", "asrkern"])
@pytest.mark.parametrize("shape", MASKED_CONV2D, ids=str)
def test_forward_and_backward(benchmark, shape, backend):
    benchmark.group = f"masked_conv2d forward+backward, {shape}"
    case = Case(shape)
    inputs = [x.requires_grad_() for x in case.inputs]
    gradient = case.output_gradient()

    def step(call: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(*inputs), inputs, gradient)

    (actual_x, *actual_weights), (expected_x, *expected_weights) = step(case.asrkern), step(case.stock)
    # Stock has a gradient for the padding too, which it reads as the zeros that are there.
    expected_x = case.mask(expected_x, case.lengths)
    for actual, expected in zip([actual_x, *actual_weights], [expected_x, *expected_weights]):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    benchmark(step, getattr(case, backend))
