"""Bidirectional recurrent layers, stock torch against asrkern: what the benchmarks of the cells share.

Outputs and gradients are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.shapes import RecurrentShape, ragged_lengths


def _backends(
    kind: type[torch.nn.RNNBase], operation: Callable, shape: RecurrentShape, ragged: bool
) -> tuple[Tensor, torch.nn.RNNBase, dict[str, Callable[[], Tensor]]]:
    torch.manual_seed(0)
    module = kind(shape.hidden_size, shape.hidden_size, shape.layers, bidirectional=True)
    x = torch.randn(shape.steps, shape.batch, shape.hidden_size)
    lengths = torch.tensor(ragged_lengths(shape.batch, shape.steps)) if ragged else None

    def stock() -> Tensor:
        if lengths is None:
            return module(x)[0]
        packed, _ = module(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(packed, total_length=shape.steps)[0]

    def asrkern() -> Tensor:
        y = x
        for layer in range(shape.layers):
            y = operation(y, *module.all_weights[2 * layer : 2 * layer + 2], lengths=lengths)[0]
        return y

    return x, module, {"stock": stock, "asrkern": asrkern}


def forward(
    benchmark,
    kind: type[torch.nn.RNNBase],
    operation: Callable,
    shape: RecurrentShape,
    ragged: bool,
    backend: str,
) -> None:
    """Time inference of one backend, "stock" or "asrkern"."""
    benchmark.group = f"{kind.__name__} forward, {shape}, {'ragged' if ragged else 'equal'} lengths"
    _, _, calls = _backends(kind, operation, shape, ragged)
    with torch.inference_mode():
        torch.testing.assert_close(calls["asrkern"](), calls["stock"](), rtol=1e-4, atol=1e-5)
        benchmark(calls[backend])


def forward_and_backward(
    benchmark,
    kind: type[torch.nn.RNNBase],
    operation: Callable,
    shape: RecurrentShape,
    ragged: bool,
    backend: str,
) -> None:
    """Time a training step of one backend, "stock" or "asrkern"."""
    benchmark.group = f"{kind.__name__} forward+backward, {shape}, {'ragged' if ragged else 'equal'} lengths"
    x, module, calls = _backends(kind, operation, shape, ragged)
    x.requires_grad_()
    gradient = torch.randn(shape.steps, shape.batch, 2 * shape.hidden_size)
    inputs = [x, *module.parameters()]

    def step(call: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(), inputs, gradient)

    for actual, expected in zip(step(calls["asrkern"]), step(calls["stock"])):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    benchmark(step, calls[backend])
