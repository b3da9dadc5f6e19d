"""Batches of no rows are computed as torch computes them; no frames are refused as torch refuses them."""

from __future__ import annotations

import pytest
import torch

from asrkern import ops
from tests.compare import assert_close
from tests.ops.calls import CELLS, g, op, recurrent


@CELLS
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_no_rows_as_torch(cell, batch_first, bidirectional, with_lengths):
    stock = getattr(torch.nn, cell.upper())(5, 6, bidirectional=bidirectional, batch_first=batch_first)
    parameters = [p.detach().requires_grad_() for p in stock.parameters()]
    x = torch.randn((0, 4, 5) if batch_first else (4, 0, 5), requires_grad=True)
    lengths = torch.zeros(0, dtype=torch.int64) if with_lengths else None
    expected, finals = stock(x)
    finals = (finals,) if cell == "gru" else finals
    weights = (parameters[:4], parameters[4:] if bidirectional else None)
    output, *states = getattr(ops, cell)(x, *weights, lengths=lengths, batch_first=batch_first)
    assert output.shape == expected.shape
    assert [s.shape for s in states] == [s.shape for s in finals]
    (output.sum() + sum(s.sum() for s in states)).backward()
    assert x.grad.shape == x.shape
    for p in parameters:
        assert torch.equal(p.grad, torch.zeros_like(p))
    arguments = recurrent(cell, prepacked=True, rows=0)
    output, *states = op(f"{cell}_prepacked")(*arguments.values())
    assert output.shape == (4, 0, 12) and all(s.shape == (2, 0, 6) for s in states)


@CELLS
@pytest.mark.parametrize("rows", [0, 3])
def test_no_frames_are_refused_as_by_torch(cell, rows):
    arguments = recurrent(cell, steps=1, rows=rows) | {"input": g(0, rows, 5)}
    with pytest.raises(
        ValueError, match=rf"input: expected at least one frame, received shape \(0, {rows}, 5\)"
    ):
        op(cell)(*arguments.values())


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5), (3, 0)])
@pytest.mark.parametrize("outputs", [0, 4])
def test_linear_of_nothing(shape, outputs):
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in (shape, (outputs, shape[-1]), (outputs,)))
    output, expected = ops.linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias)
    assert_close(output, expected, 0.0)
    seed = torch.randn_like(expected)
    grads = torch.autograd.grad(output, (x, weight, bias), seed)
    for grad, wanted in zip(grads, torch.autograd.grad(expected, (x, weight, bias), seed)):
        assert_close(grad, wanted, 1e-6)


def test_linear_of_no_rows_takes_no_time():
    output = op("linear")(g(0, 0), g(1, 0).expand(2**48, 0), None)
    assert output.shape == (0, 2**48)


@pytest.mark.parametrize("layout, shape", [("NCT", (0, 3, 5)), ("NTC", (2, 0, 3)), ("TNC", (4, 0, 3)), ("NCFT", (2, 3, 0, 4)), ("RC", (0, 3))])  # fmt: skip
def test_batch_norm_of_nothing(layout, shape):
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in (shape, (3,), (3,)))
    mean, var = g(3), g(3).abs() + 1
    result = ops.batch_norm_act(x, weight, bias, mean, var, layout=layout, training=False)
    assert result.output.shape == shape and result.count == 0
    assert torch.equal(result.mean, mean) and torch.equal(result.var, var)
    result.output.sum().backward()
    assert (
        x.grad.shape == shape
        and torch.equal(weight.grad, torch.zeros(3))
        and torch.equal(bias.grad, torch.zeros(3))
    )
    with pytest.raises(ValueError, match="input: expected at least one value in every dimension"):
        ops.batch_norm_act(x, weight, bias, mean, var, layout=layout, training=True)


def test_masked_conv2d_of_no_rows():
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in ((0, 2, 9, 7), (6, 2, 5, 3), (6,)))
    output = ops.masked_conv2d(
        x, weight, bias, stride=(2, 1), padding=(2, 1), lengths=torch.zeros(0, dtype=torch.int64)
    )
    expected = torch.nn.functional.conv2d(x, weight, bias, (2, 1), (2, 1))
    assert output.shape == expected.shape == (0, 6, 5, 7)
    output.sum().backward()
    assert x.grad.shape == x.shape and torch.equal(weight.grad, torch.zeros_like(weight))
    assert torch.equal(bias.grad, torch.zeros(6))


def test_beam_search_of_no_utterances():
    result = ops.ctc_beam_search(g(0, 5, 4), torch.zeros(0, dtype=torch.int64), beam_width=3, nbest=2)
    assert result.tokens.shape == (0, 2, 5) and result.errors.shape == (0, 2)
