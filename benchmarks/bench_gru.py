"""One bidirectional GRU layer: stock torch against asrkern.

    pytest benchmarks/bench_gru.py

Equal lengths compare with the padded stock layer, ragged ones with the packed one. Outputs and gradients are
compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asrkern import ops
from benchmarks.shapes import GRU_INFERENCE, GRU_TRAINING, GRUShape, ragged_lengths


def backends(shape: GRUShape, ragged: bool) -> tuple[Tensor, torch.nn.GRU, dict[str, Callable[[], Tensor]]]:
    torch.manual_seed(0)
    module = torch.nn.GRU(shape.hidden_size, shape.hidden_size, bidirectional=True)
    x = torch.randn(shape.steps, shape.batch, shape.hidden_size)
    lengths = torch.tensor(ragged_lengths(shape.batch, shape.steps)) if ragged else None
    weights = ops.GRUWeights(*module.all_weights[0])
    weights_reverse = ops.GRUWeights(*module.all_weights[1])

    def stock() -> Tensor:
        if lengths is None:
            return module(x)[0]
        packed, _ = module(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(packed, total_length=shape.steps)[0]

    def asrkern() -> Tensor:
        return ops.gru(x, weights, weights_reverse, lengths=lengths)[0]

    return x, module, {"stock": stock, "asrkern": asrkern}


@pytest.mark.parametrize("backend", ["stock", "asrkern"])
@pytest.mark.parametrize("ragged", [False, True], ids=["equal", "ragged"])
@pytest.mark.parametrize("shape", GRU_INFERENCE, ids=str)
def test_forward(benchmark, shape, ragged, backend):
    benchmark.group = f"gru forward, {shape}, {'ragged' if ragged else 'equal'} lengths"
    _, _, calls = backends(shape, ragged)
    with torch.inference_mode():
        torch.testing.assert_close(calls["asrkern"](), calls["stock"](), rtol=1e-4, atol=1e-5)
        benchmark(calls[backend])


@pytest.mark.parametrize("backend", ["stock", "asrkern"])
@pytest.mark.parametrize("ragged", [False, True], ids=["equal", "ragged"])
@pytest.mark.parametrize("shape", GRU_TRAINING, ids=str)
def test_forward_and_backward(benchmark, shape, ragged, backend):
    benchmark.group = f"gru forward+backward, {shape}, {'ragged' if ragged else 'equal'} lengths"
    x, module, calls = backends(shape, ragged)
    x.requires_grad_()
    gradient = torch.randn(shape.steps, shape.batch, 2 * shape.hidden_size)
    inputs = [x, *module.parameters()]

    def step(call: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(), inputs, gradient)

    for actual, expected in zip(step(calls["asrkern"]), step(calls["stock"])):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    benchmark(step, calls[backend])
