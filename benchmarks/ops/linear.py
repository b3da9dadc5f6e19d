"""Linear layer: stock torch against asrkern.

    pytest benchmarks/bench_linear.py

Outputs and gradients are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from asrkern import ops
from benchmarks.shapes import LINEAR, LinearShape

CALLS: dict[str, Callable[..., Tensor]] = {"stock": torch.nn.functional.linear, "asrkern": ops.linear}


def operands(shape: LinearShape) -> list[Tensor]:
    torch.manual_seed(0)
    scale = shape.in_features**-0.5
    return [
        torch.randn(shape.rows, shape.in_features),
        scale * torch.randn(shape.out_features, shape.in_features),
        torch.randn(shape.out_features),
    ]


@pytest.mark.parametrize("backend", ["stock", "asrkern"])
@pytest.mark.parametrize("shape", LINEAR, ids=str)
def test_forward(benchmark, shape, backend):
    benchmark.group = f"linear forward, {shape}"
    inputs = operands(shape)
    with torch.inference_mode():
        torch.testing.assert_close(CALLS["asrkern"](*inputs), CALLS["stock"](*inputs), rtol=1e-4, atol=1e-5)
        benchmark(CALLS[backend], *inputs)


@pytest.mark.parametrize("backend", ["stock", "asrkern"])
@pytest.mark.parametrize("shape", LINEAR, ids=str)
def test_forward_and_backward(benchmark, shape, backend):
    benchmark.group = f"linear forward+backward, {shape}"
    inputs = [x.requires_grad_() for x in operands(shape)]
    gradient = torch.randn(shape.rows, shape.out_features)

    def step(call: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(*inputs), inputs, gradient)

    for actual, expected in zip(step(CALLS["asrkern"]), step(CALLS["stock"])):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    benchmark(step, CALLS[backend])
