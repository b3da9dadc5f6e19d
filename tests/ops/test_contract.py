"""What every operation promises alike: torch.library's checks, tracing, autocast, any strides, no crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

from asrkern import ops
from tests.compare import assert_close, assert_same_bits
from tests.ops.calls import CALLS

INF = float("inf")


class Case(NamedTuple):
    """run(x, lengths, *parameters) → outputs; batch and time: the dimensions of x that may vary."""

    op: str
    run: Callable
    shape: tuple[int, ...]
    batch: int
    time: int
    parameters: list[tuple[int, ...]]
    lowest: int = 1


GRU_PARAMETERS = [(18, 5), (18, 6), (18,), (18,)] * 2
LSTM_PARAMETERS = [(24, 5), (24, 6), (24,), (24,)] * 2


def run_gru(x, lengths, *p):
    return ops.gru(x, p[:4], p[4:], lengths=lengths)


def run_lstm(x, lengths, *p):
    return ops.lstm(x, p[:4], p[4:], lengths=lengths)


def run_batch_norm(x, lengths, weight, bias):
    return ops.batch_norm_act(
        x, weight, bias, None, None, lengths, layout="NCFT", training=True, activation=(0.0, 20.0)
    )


def run_conv(x, lengths, weight, bias, scale, shift):
    return ops.masked_conv2d(
        x, weight, bias, scale, shift, lengths=lengths, stride=(2, 1), padding=(2, 1), activation=(0.0, 20.0)
    )


def run_conv_batch_norm(x, lengths, weight, bias, norm_weight, norm_bias):
    return ops.masked_conv2d_batch_norm_act(
        x,
        weight,
        bias,
        norm_weight,
        norm_bias,
        lengths=lengths,
        stride=(2, 1),
        padding=(2, 1),
        activation=(0.0, 20.0),
    )


def run_linear(x, lengths, weight, bias):
    return ops.linear(x, weight, bias)


def run_gru_cell(x, lengths, *p):
    rows = x.flatten(0, -2) if x.dim() > 2 else x
    return ops.gru_cell(rows, p, rows.new_zeros(rows.shape[0], 6))


def run_lstm_cell(x, lengths, *p):
    rows = x.flatten(0, -2) if x.dim() > 2 else x
    zeros = rows.new_zeros(rows.shape[0], 6)
    return ops.lstm_cell(rows, p, zeros, zeros)


CASES = {
    "gru": Case("gru", run_gru, (7, 4, 5), 1, 0, GRU_PARAMETERS),
    "lstm": Case("lstm", run_lstm, (7, 4, 5), 1, 0, LSTM_PARAMETERS),
    "gru_cell": Case("gru_cell", run_gru_cell, (4, 7, 5), 0, 1, GRU_PARAMETERS[:4]),
    "lstm_cell": Case("lstm_cell", run_lstm_cell, (4, 7, 5), 0, 1, LSTM_PARAMETERS[:4]),
    "linear": Case("linear", run_linear, (4, 7, 5), 0, 1, [(9, 5), (9,)]),
    "batch_norm_act": Case("batch_norm_act", run_batch_norm, (4, 3, 5, 7), 0, 3, [(3,), (3,)]),
    "masked_conv2d": Case("masked_conv2d", run_conv, (4, 2, 9, 7), 0, 3, [(6, 2, 5, 3)] + [(6,)] * 3),
    "masked_conv2d_batch_norm_act": Case(
        "masked_conv2d_batch_norm_act", run_conv_batch_norm, (4, 2, 9, 7), 0, 3, [(6, 2, 5, 3)] + [(6,)] * 3
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def make(case, batch=None, time=None, requires_grad=False):
    shape = list(case.shape)
    shape[case.batch], shape[case.time] = batch or shape[case.batch], time or shape[case.time]
    x = torch.randn(shape, requires_grad=requires_grad)
    lengths = torch.randint(case.lowest, shape[case.time] + 1, (shape[case.batch],))
    return x, lengths, [torch.randn(s, requires_grad=requires_grad) for s in case.parameters]


LENGTHS = torch.tensor([7, 0, 3, 5])
OPCHECKS = {
    "gru bidirectional": lambda g: ("gru", (g(7, 4, 5), LENGTHS, None, g(2, 4, 6), *(g(*s) for s in GRU_PARAMETERS), False, g.on)),
    "gru batch_first": lambda g: ("gru", (g(4, 7, 5), LENGTHS, None, None, g(18, 5), g(18, 6), *[None] * 6, True, g.on)),
    "gru packed": lambda g: ("gru", (g(15, 5), None, torch.tensor([4, 4, 3, 2, 2]), g(1, 4, 6), *(g(*s) for s in GRU_PARAMETERS[:4]), *[None] * 4, False, g.on)),
    "lstm bidirectional": lambda g: ("lstm", (g(7, 4, 5), LENGTHS, None, g(2, 4, 6), g(2, 4, 6), *(g(*s) for s in LSTM_PARAMETERS), False, g.on)),
    "lstm batch_first": lambda g: ("lstm", (g(4, 7, 5), LENGTHS, None, None, None, g(24, 5), g(24, 6), *[None] * 6, True, g.on)),
    "lstm packed": lambda g: ("lstm", (g(15, 5), None, torch.tensor([4, 4, 3, 2, 2]), None, g(1, 4, 6), *(g(*s) for s in LSTM_PARAMETERS[:4]), *[None] * 4, False, g.on)),
    "gru_cell": lambda g: ("gru_cell", (g(4, 5), g(4, 6), g(18, 5), None, g(18, 6), None, g(18), g(18), g.on)),
    "gru_cell no bias": lambda g: ("gru_cell", (g(4, 5), g(4, 6), g(18, 5), None, g(18, 6), None, None, None, g.on)),
    "lstm_cell": lambda g: ("lstm_cell", (g(4, 5), g(4, 6), g(4, 6), g(24, 5), None, g(24, 6), None, g(24), g(24), g.on)),
    "gru_cell_prepacked": lambda g: ("gru_cell_prepacked", (torch.randn(4, 5), torch.randn(4, 6), torch.ops.asrkern.speller_pack(torch.randn(18, 5), 3), None, torch.ops.asrkern.speller_pack(torch.randn(18, 6), 3), None, torch.randn(18), torch.randn(18))),
    "lstm_cell_prepacked": lambda g: ("lstm_cell_prepacked", (torch.randn(4, 5), torch.randn(4, 6), torch.randn(4, 6), torch.ops.asrkern.speller_pack(torch.ones(24, 5, dtype=torch.int8), 4), torch.randn(24), torch.ops.asrkern.speller_pack(torch.ones(24, 6, dtype=torch.int8), 4), torch.randn(24), None, None)),
    "lstm_cell int8": lambda g: ("lstm_cell", (torch.randn(4, 5), torch.randn(4, 6), torch.randn(4, 6), torch.ones(24, 5, dtype=torch.int8), torch.randn(24), torch.ones(24, 6, dtype=torch.int8), torch.randn(24), None, None, False)),
    "linear": lambda g: ("linear", (g(2, 3, 5), g(4, 5), g(4))),
    "linear no bias": lambda g: ("linear", (g(3, 5), g(4, 5), None)),
    "linear_heads": lambda g: ("linear_heads", (torch.randn(3, 10), torch.randn(8, 5), torch.randn(8), torch.randn(8), 2, False)),
    "linear_heads transposed": lambda g: ("linear_heads", (torch.randn(3, 8), torch.ones(8, 5, dtype=torch.int8), None, None, 2, True)),
    "attention": lambda g: ("attention", (torch.randn(15, 8), torch.randn(15, 4), torch.randn(15, 6), LENGTHS, LENGTHS, torch.randn(4, 1, 7, 7), 4, 2, True, 0.5)),
    "batch_norm_act training": lambda g: ("batch_norm_act", (g(4, 3, 2, 7), g(3), g(3), None, None, LENGTHS, "NCFT", True, False, 1e-5, 0.0, 20.0)),
    "batch_norm_act eval": lambda g: ("batch_norm_act", (g(7, 4, 3), None, None, torch.randn(3), torch.rand(3) + 0.5, LENGTHS, "TNC", False, True, 1e-5, -INF, INF)),
    "masked_conv2d": lambda g: ("masked_conv2d", (g(4, 2, 9, 7), g(6, 2, 5, 3), g(6), g(6), g(6), LENGTHS, None, [2, 1], [2, 1], 0.0, 20.0, [1, 1])),
    "masked_conv2d plain": lambda g: ("masked_conv2d", (g(1, 2, 9, 7), g(6, 2, 5, 3), None, None, None, None, torch.tensor([4]), [1, 1], [0, 0], -INF, INF, [1, 1])),
    "masked_conv2d depthwise": lambda g: ("masked_conv2d", (g(4, 3, 9, 7), g(3, 1, 2, 3), g(3), None, None, LENGTHS, None, [1, 1], [1, 1], 0.0, 20.0, [1, 1], 3)),
    "masked_conv2d pooled": lambda g: ("masked_conv2d", (g(4, 16, 9, 7), g(16, 16, 2, 3), g(16), g(16), g(16), LENGTHS, None, [1, 1], [1, 1], 0.0, 20.0, [3, 2])),
}  # fmt: skip


class Maker:
    def __init__(self, on):
        self.on = on

    def __call__(self, *shape):
        return torch.randn(*shape, requires_grad=self.on)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", OPCHECKS)
def test_opcheck(name, requires_grad):
    op, args = OPCHECKS[name](Maker(requires_grad))
    result = torch.library.opcheck(getattr(torch.ops.asrkern, op).default, args)
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    "op",
    [
        "gru_backward",
        "lstm_backward",
        "gru_cell_backward",
        "lstm_cell_backward",
        "batch_norm_act_backward",
        "masked_conv2d_backward_input",
        "masked_conv2d_backward_weight",
    ],
)
def test_opcheck_of_backwards(op):
    if "cell" in op or "conv" in op:
        args = tuple(CALLS[op]().values())
    elif op in ("gru_backward", "lstm_backward"):
        parameters, states = (
            (GRU_PARAMETERS, [None]) if op == "gru_backward" else (LSTM_PARAMETERS, [None] * 2)
        )
        inputs = (torch.randn(7, 4, 5), LENGTHS, None, *states)
        weights = [torch.randn(s) for s in parameters]
        forward = getattr(torch.ops.asrkern, op.removesuffix("_backward"))
        output, *finals, reserve = forward(*inputs, *weights, False, True)
        pairs = (*weights[:2], *weights[4:6])
        grads = [torch.randn_like(t) for t in (output, *finals)]
        args = (*grads, *inputs, *pairs, output, reserve, False)
    else:
        x, options = torch.randn(4, 3, 2, 7), ("NCFT", True, False, 1e-5, 0.0, 20.0)
        _, mean, var, _ = torch.ops.asrkern.batch_norm_act(x, None, None, None, None, LENGTHS, *options)
        args = (torch.randn_like(x), x, None, None, mean, var, LENGTHS, *options)
    result = torch.library.opcheck(getattr(torch.ops.asrkern, op).default, args)
    assert set(result.values()) == {"SUCCESS"}


@each_case
def test_compiles_whole_with_dynamic_shapes(case):
    torch._dynamo.reset()
    compiled = torch.compile(case.run, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, time in ((4, 7), (2, 12)):
        x, lengths, parameters = make(case, batch, time, requires_grad=True)
        inputs = [x, *parameters]
        outputs, expected = compiled(x, lengths, *parameters), case.run(x, lengths, *parameters)
        for output, wanted in zip(as_tuple(outputs), as_tuple(expected)):
            assert_same_bits(output, wanted)
        output, wanted = as_tuple(outputs)[0], as_tuple(expected)[0]
        seed = torch.randn_like(wanted)
        for grad, wanted_grad in zip(
            torch.autograd.grad(output, inputs, seed), torch.autograd.grad(wanted, inputs, seed)
        ):
            assert_close(grad, wanted_grad, 1e-6)


@each_case
def test_exports_with_dynamic_batch_and_time(case):
    class Module(torch.nn.Module):
        def __init__(self, parameters):
            super().__init__()
            self.parameters_ = torch.nn.ParameterList(parameters)

        def forward(self, x, lengths):
            return case.run(x, lengths, *self.parameters_)

    x, lengths, parameters = make(case)
    batch, time = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("time", min=4, max=4096)
    program = torch.export.export(
        Module(parameters).eval(),
        (x, lengths),
        dynamic_shapes=({case.batch: batch, case.time: time}, {0: batch}),
    )
    x, lengths, _ = make(case, 3, 11)
    expected = as_tuple(case.run(x, lengths, *parameters))
    for output, wanted in zip(as_tuple(program.module()(x, lengths)), expected):
        assert_same_bits(output, wanted)


@pytest.mark.parametrize(
    "op, parameters", [(ops.gru, GRU_PARAMETERS), (ops.lstm, LSTM_PARAMETERS)], ids=["gru", "lstm"]
)
def test_packed_compiles_whole(op, parameters):
    torch._dynamo.reset()
    weights = [torch.randn(s) for s in parameters]
    compiled = torch.compile(
        lambda data, sizes: op(data, weights[:4], weights[4:], batch_sizes=sizes),
        fullgraph=True, dynamic=True, backend="aot_eager",
    )  # fmt: skip
    for lengths in ([7, 5, 2], [9, 9, 4, 1, 1]):
        packed = pack_padded_sequence(torch.randn(max(lengths), len(lengths), 5), torch.tensor(lengths))
        expected = op(packed.data, weights[:4], weights[4:], batch_sizes=packed.batch_sizes)
        for output, wanted in zip(compiled(packed.data, packed.batch_sizes), expected):
            assert_same_bits(output, wanted)


@each_case
def test_autocast_computes_in_float32(case):
    x, lengths, parameters = make(case, requires_grad=True)
    expected = as_tuple(case.run(x.bfloat16(), lengths, *parameters))[0]
    with torch.autocast("cpu", torch.bfloat16):
        output = as_tuple(case.run(x.bfloat16(), lengths, *parameters))[0]
        output.float().sum().backward()
    assert output.dtype == torch.float32
    assert_same_bits(output, expected)
    assert x.grad.dtype == torch.float32 and x.grad.isfinite().all()


@each_case
def test_any_strides(case):
    x, lengths, parameters = make(case)
    expected = as_tuple(case.run(x, lengths, *parameters))
    strided = x.mT.contiguous().mT if x.dim() > 1 else x
    assert not strided.is_contiguous()
    scattered = [torch.stack([p, p], -1)[..., 0] for p in parameters]
    spread = torch.stack([lengths, lengths], -1)[..., 0]
    for output, wanted in zip(as_tuple(case.run(strided, spread, *scattered)), expected):
        assert_same_bits(output, wanted)
    grads = []
    for value in (x.clone(), strided):
        value = value.detach().requires_grad_()
        output = as_tuple(case.run(value, lengths, *parameters))[0]
        output.backward(torch.ones(()).expand_as(output))
        grads.append(value.grad)
    assert_close(grads[1], grads[0], 1e-6)


SIZES = st.integers(0, 4)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", CASES)
def test_any_shapes_compute_or_raise(name, data):
    """Random ranks, extents and lengths: finite results of the right kind, or an exception that names an argument."""
    case = CASES[name]
    sizes = [s if data.draw(st.integers(0, 3)) else data.draw(SIZES) for s in case.shape]
    x = torch.randn(
        sizes[: data.draw(st.integers(1, len(sizes)))] if data.draw(st.integers(0, 9)) == 0 else sizes
    )
    rows = data.draw(st.one_of(st.just(sizes[case.batch]), SIZES))
    lengths = torch.tensor(
        data.draw(st.lists(st.integers(-2, 9), min_size=rows, max_size=rows)), dtype=torch.int64
    )
    parameters = []
    for shape in case.parameters:
        shape = list(shape)
        if data.draw(st.integers(0, 19)) == 0:
            shape[0] = data.draw(SIZES)
        parameters.append(torch.randn(shape))
    try:
        outputs = case.run(x, lengths, *parameters)
    except (ValueError, TypeError) as error:
        names = ("input", "weight", "bias", "lengths", "scale", "shift", "h:")
        assert any(str(error).startswith(n) for n in names), str(error)
    else:
        assert all(t.isfinite().all() for t in as_tuple(outputs))
