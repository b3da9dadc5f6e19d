"""BatchNorm, activation and mask: stock torch against asrkern.

    pytest benchmarks/bench_batch_norm_act.py

Stock is ``batch_norm`` over the valid frames, ``hardtanh``, and a vectorised mask. Outputs and gradients are
compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.ops.batch_norm_act import Case
from benchmarks.shapes import BATCH_NORM_ACT


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
