"""ops.gru_cell and ops.lstm_cell: a step of the reference, and of the layers bit for bit."""

from __future__ import annotations

import itertools

import pytest
import torch

from asrkern import ops
from asrkern.reference.gru import gru_cell as gru_formula
from asrkern.reference.lstm import lstm_cell as lstm_formula
from tests.compare import assert_close, assert_same_bits

STEPS = {
    "gru": (ops.gru_cell, ops.gru, gru_formula, 3, 1),
    "lstm": (ops.lstm_cell, ops.lstm, lstm_formula, 4, 2),
}
cells = pytest.mark.parametrize("cell", STEPS)


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def make(cell, rows, features, size, bias=True, dtype=torch.float32):
    """input, weights and states."""
    _, _, _, gates, states = STEPS[cell]
    shapes = [(gates * size, features), (gates * size, size), *([(gates * size,)] * 2 if bias else [])]
    weights = [torch.randn(s, dtype=dtype) / s[-1] ** 0.5 for s in shapes]
    x, *before = (torch.randn(rows, n, dtype=dtype) for n in (features, *[size] * states))
    return x, weights, before


def expected(cell, x, weights, before):
    x, *before = (t.double() for t in (x, *before))
    w_ih, w_hh, *biases = (w.double() for w in weights)
    b_ih, b_hh = biases or (0, 0)
    return STEPS[cell][2](x @ w_ih.t() + b_ih, before[0] @ w_hh.t() + b_hh, *before)


@cells
@pytest.mark.parametrize(
    "rows, features, size, bias",
    [(r, f, s, b) for (r, f, s), b in itertools.product([(1, 1, 1), (7, 63, 37), (25, 100, 64), (40, 5, 129)], [True, False])],
)  # fmt: skip
def test_equals_reference(cell, rows, features, size, bias):
    x, weights, before = make(cell, rows, features, size, bias)
    for got, wanted in zip(
        as_tuple(STEPS[cell][0](x, weights, *before)), expected(cell, x, weights, before), strict=True
    ):
        assert_close(got, wanted, 1e-5)


@cells
def test_gradients_equal_reference(cell):
    x, weights, before = make(cell, 9, 33, 40)
    tensors = [t.requires_grad_() for t in (x, *weights, *before)]
    doubles = [t.detach().double().requires_grad_() for t in tensors]
    outputs = as_tuple(STEPS[cell][0](x, weights, *before))
    wanted = expected(cell, doubles[0], doubles[1:5], doubles[5:])
    seeds = [torch.randn_like(t) for t in outputs]
    grads = torch.autograd.grad(outputs, tensors, seeds)
    exact = torch.autograd.grad(wanted, doubles, [s.double() for s in seeds])
    for grad, expected_grad in zip(grads, exact, strict=True):
        assert_close(grad, expected_grad, 1e-4)


@cells
@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck(cell, bias):
    x, weights, before = make(cell, 3, 4, 5, bias, torch.float64)
    count = len(weights)

    def step(x, *rest):
        return STEPS[cell][0](x, rest[:count], *rest[count:])

    assert torch.autograd.gradcheck(step, [t.requires_grad_() for t in (x, *weights, *before)])


@cells
def test_gradients_are_formed_for_what_asks_for_them(cell):
    x, weights, before = make(cell, 3, 4, 5)
    for asked in (x, before[-1], weights[1], weights[2]):
        asked.requires_grad_()
        (grad,) = torch.autograd.grad(as_tuple(STEPS[cell][0](x, weights, *before))[0].sum(), asked)
        assert grad.shape == asked.shape and grad.any()
        asked.requires_grad_(False)


@cells
@pytest.mark.parametrize("thread_count", [1, 2, 5])
def test_rows_are_invariant(cell, thread_count, threads):
    x, weights, before = make(cell, 67, 300, 70)
    step = STEPS[cell][0]
    alone = [torch.cat(rows) for rows in zip(*(as_tuple(step(x[i : i + 1], weights, *(s[i : i + 1] for s in before))) for i in range(67)))]  # fmt: skip
    threads(thread_count)
    for rows in (2, 3, 7, 16, 67):
        for got, wanted in zip(
            as_tuple(step(x[:rows].flip(0), weights, *(s[:rows].flip(0) for s in before))), alone
        ):
            assert_same_bits(got.flip(0), wanted[:rows], f"{rows} rows, reversed")


@cells
@pytest.mark.parametrize("bias", [True, False])
def test_a_step_of_the_layer_has_the_same_bits(cell, bias):
    x, weights, before = make(cell, 5, 30, 37, bias)
    step, layer, *_ = STEPS[cell]
    _, *finals = layer(x[None], weights, None, *(s[None] for s in before))
    for got, wanted in zip(as_tuple(step(x, weights, *before)), finals, strict=True):
        assert_same_bits(got, wanted[0])


@cells
@pytest.mark.parametrize("format", ["int8", "bf16"])
def test_quantized_equals_its_own_weights(cell, format):
    x, (w_ih, w_hh, *biases), before = make(cell, 7, 63, 37)
    (w_ih, s_ih), (w_hh, s_hh) = ops.quantize_weight(w_ih, format), ops.quantize_weight(w_hh, format)
    weights, scales = (w_ih, w_hh, *biases), (s_ih, s_hh)
    wide = [w.double() if s is None else w.double() * s.double()[:, None] for w, s in zip(weights, scales)]
    step = STEPS[cell][0]
    outputs = as_tuple(step(x, weights, *before, scales=scales))
    for got, wanted in zip(outputs, expected(cell, x, (*wide, *biases), before), strict=True):
        assert_close(got, wanted, 1e-5)
    for i in range(7):
        rows = as_tuple(step(x[i : i + 1], weights, *(s[i : i + 1] for s in before), scales=scales))
        for got, wanted in zip(rows, outputs):
            assert_same_bits(got[0], wanted[i], f"row {i}")
    assert not as_tuple(step(x.requires_grad_(), weights, *before, scales=scales))[0].requires_grad


@cells
def test_low_precision_is_computed_in_float32(cell):
    x, weights, before = make(cell, 3, 4, 5)
    low = [t.bfloat16() for t in (x, *weights, *before)]
    got = as_tuple(STEPS[cell][0](low[0], low[1:5], *low[5:]))[0]
    wanted = as_tuple(
        STEPS[cell][0](low[0].float(), [t.float() for t in low[1:5]], *(t.float() for t in low[5:]))
    )[0]
    assert got.dtype == torch.bfloat16 and torch.equal(got, wanted.bfloat16())


@cells
def test_no_rows(cell):
    x, weights, before = make(cell, 0, 4, 5)
    tensors = [t.requires_grad_() for t in (x, *weights, *before)]
    output = as_tuple(STEPS[cell][0](x, weights, *before))[0]
    assert output.shape == (0, 5)
    for grad, tensor in zip(torch.autograd.grad(output.sum(), tensors), tensors):
        assert grad.shape == tensor.shape and not grad.any()


@cells
def test_on_other_devices_torch_computes(cell):
    x, weights, before = make(cell, 3, 4, 5)
    on_meta = [t.to("meta") for t in (x, *weights, *before)]
    assert as_tuple(STEPS[cell][0](on_meta[0], on_meta[1:5], *on_meta[5:]))[0].shape == (3, 5)


@cells
def test_double_backward_raises(cell):
    x, weights, before = make(cell, 3, 4, 5)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(
        as_tuple(STEPS[cell][0](x, weights, *before))[0].sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="double backward"):
        grad.sum().backward()


@cells
@pytest.mark.parametrize(
    "change, message",
    [
        ({"input": torch.zeros(3, 5)}, r"input: expected shape \(3, 4\), received \(3, 5\)"),
        ({"input": torch.zeros(4)}, r"input: expected 2 dimensions, received shape \(4,\)"),
        ({"input": torch.zeros(3, 4, dtype=torch.int64)}, "input: expected a floating-point dtype"),
        ({"input": None}, "input: expected a Tensor, received NoneType"),
        ({"h": torch.zeros(2, 5)}, r"h: expected shape \(3, 5\), received \(2, 5\)"),
        ({"h": torch.zeros(3, 5, dtype=torch.float64)}, "h: expected the dtype of input"),
        ({"h": torch.zeros(3, 5, device="meta")}, "h: expected device cpu"),
        ({1: torch.zeros(15, 4)}, r"weights.weight_hh: expected shape"),
        ({3: None}, "weights: expected bias_ih and bias_hh"),
        ({"scales": (None, None)}, "weights.weight_ih: expected int8 or bfloat16"),
    ],
)  # fmt: skip
def test_bad_input(cell, change, message):
    x, weights, before = make(cell, 3, 4, 5)
    for key, value in change.items():
        if key == "input":
            x = value
        elif key == "h":
            before[0] = value
        elif key != "scales":
            weights[key] = value
    with pytest.raises((ValueError, TypeError), match=message):
        STEPS[cell][0](x, weights, *before, scales=change.get("scales"))


@cells
def test_bad_quantized_input(cell):
    x, weights, before = make(cell, 3, 4, 5)
    int8 = [ops.quantize_weight(w, "int8") for w in weights[:2]]
    good, scales = [int8[0][0], int8[1][0], *weights[2:]], (int8[0][1], int8[1][1])
    for spoilt, message in (
        ((good, (scales[0][:-1], scales[1])), "scales of weight_ih: expected shape"),
        (([good[0][:-1], *good[1:]], scales), "weights.weight_ih: expected shape"),
        (([good[0], good[1].bfloat16(), *good[2:]], scales), "weights.weight_hh: expected int8"),
        (([*good[:3], None], scales), "weights: expected bias_ih and bias_hh"),
        (([*good[:3], good[3][:-1]], scales), "weights.bias_hh: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            STEPS[cell][0](x, spoilt[0], *before, scales=spoilt[1])
