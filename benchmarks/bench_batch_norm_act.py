"""BatchNorm, activation and mask: stock torch against asrkern.

    pytest benchmarks/bench_batch_norm_act.py

Stock is ``batch_norm`` over the valid frames, ``clamp``, and a vectorised mask. Outputs and gradients are
compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from asrkern import ops
from benchmarks.shapes import BATCH_NORM_ACT, BatchNormShape, ragged_lengths


class Case:
    """Random operands of one shape, and the operation by both backends."""

    def __init__(self, shape: BatchNormShape) -> None:
        torch.manual_seed(0)
        self.shape = shape
        self.axes = {name: shape.layout.index(name) for name in "NCT"}
        channels = shape.size[self.axes["C"]]
        batch, frames = shape.size[self.axes["N"]], shape.size[self.axes["T"]]
        self.lengths = torch.tensor(ragged_lengths(batch, frames))
        self.inputs = [torch.randn(shape.size) + 1, torch.rand(channels) + 0.5, torch.randn(channels)]
        self.running_mean, self.running_var = torch.randn(channels), torch.rand(channels) + 0.5

    def valid(self) -> Tensor:
        """Mask of the valid frames, of the input's number of dimensions."""
        n, t = self.axes["N"], self.axes["T"]
        valid = torch.arange(self.shape.size[t]) < self.lengths[:, None]  # [N, T]
        size = [self.shape.size[i] if i in (n, t) else 1 for i in range(len(self.shape.size))]
        return (valid if n < t else valid.t()).reshape(size)

    def normalise(self, x: Tensor, weight: Tensor, bias: Tensor, *, training: bool) -> Tensor:
        c = self.axes["C"]
        if training:
            # Rows of channels: the form in which stock torch can leave frames out of its statistics.
            rows = x.movedim(c, -1)
            chosen = self.valid().movedim(c, -1).expand(*rows.shape[:-1], 1)[..., 0]
            y = torch.nn.functional.batch_norm(rows[chosen], None, None, weight, bias, training=True)
            return torch.zeros_like(rows).masked_scatter(chosen[..., None], y).movedim(-1, c)
        flat = x if c == 1 else x.flatten(0, 1)
        y = torch.nn.functional.batch_norm(flat, self.running_mean, self.running_var, weight, bias)
        return y.view(x.shape)

    def stock(self, x: Tensor, weight: Tensor, bias: Tensor, *, training: bool) -> Tensor:
        y = self.normalise(x, weight, bias, training=training)
        y = y if self.shape.activation is None else y.clamp(*self.shape.activation)
        return y.masked_fill(~self.valid(), 0)

    def asrkern(self, x: Tensor, weight: Tensor, bias: Tensor, *, training: bool) -> Tensor:
        return ops.batch_norm_act(
            x,
            weight,
            bias,
            self.running_mean,
            self.running_var,
            self.lengths,
            layout=self.shape.layout,
            training=training,
            activation=self.shape.activation,
        ).output

    def output_gradient(self) -> Tensor:
        """Random, but zero where rounding may decide on which side of the activation's kinks a value is."""
        with torch.no_grad():
            before = self.normalise(*self.inputs, training=True)
        gradient = torch.randn(before.shape)
        for bound in self.shape.activation or ():
            gradient.masked_fill_((before - bound).abs() < 1e-4, 0)
        return gradient


@pytest.mark.parametrize("backend", ["stock", "asrkern"])
@pytest.mark.parametrize("shape", BATCH_NORM_ACT, ids=str)
def test_forward(benchmark, shape, backend):
    benchmark.group = f"batch_norm_act forward (inference), {shape}"
    case = Case(shape)
    with torch.inference_mode():
        actual, expected = (call(*case.inputs, training=False) for call in (case.asrkern, case.stock))
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
        benchmark(getattr(case, backend), *case.inputs, training=False)


@pytest.mark.parametrize("backend", ["stock", "asrkern"])
@pytest.mark.parametrize("shape", BATCH_NORM_ACT, ids=str)
def test_forward_and_backward(benchmark, shape, backend):
    benchmark.group = f"batch_norm_act forward+backward (training), {shape}"
    case = Case(shape)
    inputs = [x.requires_grad_() for x in case.inputs]
    gradient = case.output_gradient()

    def step(call: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(*inputs, training=True), inputs, gradient)

    for actual, expected in zip(step(case.asrkern), step(case.stock)):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    benchmark(step, getattr(case, backend))
