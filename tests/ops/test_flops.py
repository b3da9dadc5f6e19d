"""asrkern.ops.flops: an operation counts what its reference, made of torch's operations, counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from asrkern import nn, ops, reference
from asrkern.ops import flops  # noqa: F401


def counted(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def weights(gates: int, bidirectional: bool, requires_grad: bool = False) -> tuple:
    def one():
        shapes = ((gates * 5, 3), (gates * 5, 5), (gates * 5,), (gates * 5,))
        return [torch.randn(shape).requires_grad_(requires_grad) for shape in shapes]

    return one(), one() if bidirectional else None


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("name", "gates"), [("gru", 3), ("lstm", 4)])
def test_recurrent_layers(name, gates, bidirectional):
    x, arguments = torch.randn(7, 2, 3), weights(gates, bidirectional)
    expected = counted(lambda: getattr(reference, name)(x, *arguments))
    assert expected == 2 * (1 + bidirectional) * 14 * gates * 5 * (3 + 5)
    assert counted(lambda: getattr(ops, name)(x, *arguments)) == expected
    assert counted(lambda: getattr(ops, name)(x.transpose(0, 1), *arguments, batch_first=True)) == expected
    # Packed, which has no padding: 7 + 4 frames.
    data, sizes = torch.randn(11, 3), torch.tensor([2, 2, 2, 2, 1, 1, 1])
    assert counted(lambda: getattr(ops, name)(data, *arguments, batch_sizes=sizes)) == expected * 11 // 14


@pytest.mark.parametrize(("name", "gates"), [("gru", 3), ("lstm", 4)])
def test_recurrent_layers_backward(name, gates):
    x = torch.randn(7, 2, 3, requires_grad=True)
    arguments = weights(gates, True, requires_grad=True)
    # From a state that has a gradient too: the reference starts without one.
    h0 = [torch.randn(2, 2, 5, requires_grad=True) for _ in range(1 if name == "gru" else 2)]
    totals = {}
    for module in (reference, ops):
        totals[module] = counted(lambda m=module: getattr(m, name)(x, *arguments, *h0)[0].sum().backward())
    assert totals[ops] == totals[reference] == 3 * 2 * 2 * 14 * gates * 5 * (3 + 5)


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)])
def test_prepacked_and_quantized_layers(kind, gates):
    layer = kind(3, 5, 2, bidirectional=True).eval()
    x = torch.randn(7, 2, 3)
    expected = 2 * 2 * 14 * gates * 5 * ((3 + 5) + (10 + 5))
    with torch.no_grad():
        assert counted(lambda: layer(x)) == expected
        for weights in ("int8", "bf16"):
            small = nn.quantize(torch.nn.Sequential(layer, torch.nn.Linear(10, 4)), weights)
            assert counted(lambda s=small: s[0](x)) == expected
            assert counted(lambda s=small: s[1](torch.randn(6, 10))) == 2 * 6 * 40


def test_linear():
    x, weight = torch.randn(3, 7, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    expected = counted(lambda: reference.linear(x, weight).sum().backward())
    assert expected == 3 * 2 * 21 * 20
    assert counted(lambda: ops.linear(x, weight).sum().backward()) == expected


@pytest.mark.parametrize(("stride", "padding"), [((1, 1), (0, 0)), ((2, 3), (1, 2))])
def test_masked_conv2d(stride, padding):
    x, weight = (torch.randn(shape, requires_grad=True) for shape in ((2, 3, 9, 17), (4, 3, 5, 3)))
    options = {"stride": stride, "padding": padding}
    expected = counted(lambda: reference.masked_conv2d(x, weight, **options).sum().backward())
    assert expected > 0
    assert counted(lambda: ops.masked_conv2d(x, weight, **options).sum().backward()) == expected
