"""int8 weights with activations of eight bits: linear_quantized, gru_prepacked and lstm_prepacked."""

import itertools
from typing import NamedTuple

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from asrkern import ops, reference
from asrkern.reference.int8 import Int8Weight, round_rows
from tests.compare import assert_close, assert_same_bits
from tests.ops.calls import g, op, recurrent

INF, NAN = float("inf"), float("nan")


def int8_weight(rows, columns, scaled=1.0):
    return Int8Weight(*ops.quantize_weight(torch.randn(rows, columns) * scaled, "int8"))


@pytest.mark.parametrize(
    "rows, features, outputs",
    [(1, 1, 1), (2, 5, 3), (7, 37, 29), (13, 64, 33), (25, 100, 70), (11, 1027, 96), (100, 131, 200), (0, 4, 5), (3, 0, 5)],
)  # fmt: skip
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_the_reference_bit_for_bit(rows, features, outputs, bias):
    x = torch.randn(rows, features) * torch.logspace(-3, 3, rows)[:, None]
    weight = int8_weight(outputs, features) if features else Int8Weight(torch.ones(5, 0).char(), g(5))
    b = torch.randn(outputs) if bias else None
    output = ops.linear_quantized(x, *weight, b, activations="int8")
    if features:
        assert_same_bits(output, reference.linear_int8(x, weight, b))
    else:
        assert_same_bits(output, torch.zeros(3, 5) if b is None else b.expand(3, 5))
    for row in range(rows):
        alone = ops.linear_quantized(x[row : row + 1], *weight, b, activations="int8")
        assert_same_bits(alone[0], output[row], f"row {row}")
    # Few rows meet weights that are not packed.
    for count in range(2, min(rows, 6)):
        few = ops.linear_quantized(x[:count], *weight, b, activations="int8")
        assert_same_bits(few, output[:count], f"{count} rows")


def test_linear_is_close_to_float_activations():
    x, weight, bias = torch.randn(30, 500), int8_weight(70, 500), torch.randn(70)
    rounded = ops.linear_quantized(x, *weight, bias, activations="int8")
    assert_close(rounded, ops.linear_quantized(x, *weight, bias), 0.02)
    assert not torch.equal(rounded, ops.linear_quantized(x, *weight, bias))


def test_halves_round_to_even_and_extremes_are_kept():
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0, 126.5]])
    q, scale = round_rows(x)
    assert q.tolist() == [[127, 0, 2, 2, 0, -2, -127, 126]] and scale.item() == 1
    for i, column in enumerate(torch.eye(8, dtype=torch.int8)):
        output = ops.linear_quantized(x, column[None], activations="int8")
        assert output.item() == q[0, i], i


@pytest.mark.parametrize("features", [1, 3, 8, 16, 31, 64, 250])
def test_the_largest_sums_are_exact(features):
    for sign, rows in itertools.product((1, -1), (1, 4, 9)):
        x = torch.full((rows, features), 127.0)
        for value in (127, -127, -128):
            weight = torch.full((3, features), value, dtype=torch.int8)
            output = ops.linear_quantized(sign * x, weight, activations="int8")
            assert (output == sign * 127 * value * features).all()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("place", [0, 7, 16, 36])
def test_a_row_that_is_not_finite_is_nan_and_its_mates_are_not(value, place):
    x, weight, bias = torch.randn(3, 37), int8_weight(5, 37), torch.randn(5)
    expected = ops.linear_quantized(x, *weight, bias, activations="int8")
    x[1, place] = value
    output = ops.linear_quantized(x, *weight, bias, activations="int8")
    assert output[1].isnan().all()
    assert_same_bits(output[::2], expected[::2])


def test_rows_of_zeros_and_of_next_to_nothing():
    weight, bias = int8_weight(5, 37), torch.randn(5)
    for x in (torch.zeros(1, 37), torch.full((1, 37), 2.0**-101), torch.full((1, 37), 1e-42)):
        assert_same_bits(ops.linear_quantized(x, *weight, bias, activations="int8")[0], bias)
    x = torch.randn(1, 37) * 1e-25
    assert_same_bits(ops.linear_quantized(x, *weight, activations="int8"), reference.linear_int8(x, weight))


def test_rows_anywhere_in_memory_and_other_dtypes():
    weight = int8_weight(9, 24)
    x = torch.randn(24, 10).t()[1::2]
    expected = ops.linear_quantized(x.contiguous(), *weight, activations="int8")
    assert_same_bits(ops.linear_quantized(x, *weight, activations="int8"), expected)
    assert ops.linear_quantized(x.double(), *weight, activations="int8").dtype == torch.float64
    strided = Int8Weight(weight.value.t().contiguous().t(), weight.scale)
    assert_same_bits(ops.linear_quantized(x, *strided, activations="int8"), expected)


class Kind(NamedTuple):
    cell: str
    gates: int
    states: int

    @property
    def reference(self):
        return getattr(reference, f"{self.cell}_int8")

    def run(self, *args, **options):
        return getattr(ops, f"{self.cell}_prepacked")(*args, activations="int8", **options)

    def make(self, hidden_size, input_size=13, bias=True):
        """The reference's weights and the operation's."""
        rows = self.gates * hidden_size
        ih, hh = (int8_weight(rows, size, hidden_size**-0.5) for size in (input_size, hidden_size))
        biases = [torch.randn(rows) if bias else None for _ in range(2)]
        kind = self.cell.upper()
        packed_hh = getattr(ops, f"pack_{self.cell}_weight")(hh.value, "int8")
        packed = getattr(ops, f"Packed{kind}Weights")(*ih, packed_hh, hh.scale, *biases)
        return (ih, hh, *biases), packed


GRU, LSTM = Kind("gru", 3, 1), Kind("lstm", 4, 2)
kinds = pytest.mark.parametrize("kind", [GRU, LSTM], ids=["gru", "lstm"])


@kinds
@pytest.mark.parametrize("hidden_size", [1, 5, 16, 37, 100])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 9, 17])
def test_one_step_is_the_reference(kind, hidden_size, rows):
    (weights, packed), (reverse, packed_reverse) = kind.make(hidden_size), kind.make(hidden_size)
    x = torch.randn(1, rows, 13)
    states = [torch.randn(2, rows, hidden_size) for _ in range(kind.states)]
    results = kind.run(x, packed, packed_reverse, *states)
    for result, wanted in zip(results, kind.reference(x, weights, reverse, *states), strict=True):
        assert_close(result, wanted, 2e-6)


@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_many_steps_are_as_many_calls_and_close_to_the_reference(kind, bias):
    hidden_size, rows, steps = 37, 5, 11
    (weights, packed), (reverse, packed_reverse) = (
        kind.make(hidden_size, bias=bias),
        kind.make(hidden_size, bias=bias),
    )
    x, lengths = torch.randn(steps, rows, 13), torch.tensor([11, 0, 3, 7, 1])
    states = [torch.randn(2, rows, hidden_size) for _ in range(kind.states)]
    output, *finals = kind.run(x, packed, packed_reverse, *states, lengths=lengths)
    # A rounding that falls to the other side moves a value by 1/127 of the row's largest.
    wanted = kind.reference(x, weights, reverse, *states, lengths=lengths)
    for result, expected in zip((output, *finals), wanted, strict=True):
        assert_close(result, expected, 2e-2)
    forward = [state[:1] for state in states]
    for t in range(steps):
        step, *forward = kind.run(x[t : t + 1], packed, None, *forward)
        running = lengths > t
        assert_same_bits(step[0, running], output[t, running, :hidden_size], f"step {t}")


@kinds
@pytest.mark.parametrize("hidden_size", [16, 37, 130])
def test_rows_are_invariant(kind, hidden_size):
    (_, packed), (_, packed_reverse) = kind.make(hidden_size), kind.make(hidden_size)
    x, lengths = torch.randn(9, 19, 13) * torch.logspace(-2, 2, 19)[:, None], torch.randint(1, 10, (19,))
    output, *_ = kind.run(x, packed, packed_reverse, lengths=lengths)
    for i in range(19):
        alone, *_ = kind.run(x[: lengths[i], i : i + 1], packed, packed_reverse)
        assert_same_bits(alone[:, 0], output[: lengths[i], i], f"row {i}")
    sequence = pack_padded_sequence(x, lengths, enforce_sorted=False)
    data, *_ = kind.run(sequence.data, packed, packed_reverse, batch_sizes=sequence.batch_sizes)
    assert_same_bits(data, pack_padded_sequence(output, lengths, enforce_sorted=False).data)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3, 5):
            torch.set_num_threads(count)
            assert_same_bits(
                kind.run(x, packed, packed_reverse, lengths=lengths)[0], output, f"{count} threads"
            )
    finally:
        torch.set_num_threads(threads)


@kinds
def test_rows_that_are_not_finite(kind):
    _, packed = kind.make(20)
    x = torch.randn(6, 3, 13)
    expected, *_ = kind.run(x, packed)
    x[2, 1, 4] = NAN
    output, *_ = kind.run(x, packed)
    assert_same_bits(output[:2], expected[:2])
    assert output[2:, 1].isnan().all()
    assert_same_bits(output[:, ::2], expected[:, ::2])


@kinds
def test_torch_library_checks(kind):
    arguments = recurrent(kind.cell)
    for end in ("", "_reverse"):
        for part in ("ih", "hh"):
            arguments[f"weight_{part}{end}"] = (arguments[f"weight_{part}{end}"] * 50).clamp(-127, 127).char()
    direction = [
        t
        for end in ("", "_reverse")
        for t in (
            arguments[f"weight_ih{end}"],
            g(6 * kind.gates),
            op(f"{kind.cell}_pack")(arguments[f"weight_hh{end}"], True),
            g(6 * kind.gates),
            arguments[f"bias_ih{end}"],
            arguments[f"bias_hh{end}"],
        )
    ]
    states = [arguments[name] for name in ("h0", "c0")[: kind.states]]
    call = (arguments["input"], arguments["lengths"], None, *states, *direction, False, True)
    torch.library.opcheck(op(f"{kind.cell}_prepacked"), call)
    torch.library.opcheck(op(f"{kind.cell}_pack"), (arguments["weight_hh"], True))


def test_torch_library_checks_of_linear():
    weight = int8_weight(4, 5)
    torch.library.opcheck(op("linear_quantized"), (g(3, 5), *weight, g(4), True))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: ops.linear_quantized(g(2, 3), *int8_weight(4, 3), activations="int4"),
            "activations: expected .* received 'int4'",
        ),
        (
            lambda: ops.linear_quantized(g(2, 3), g(4, 3).bfloat16(), activations="int8"),
            r'weight: expected int8 with activations="int8", received torch\.bfloat16',
        ),
        (
            lambda: ops.linear_quantized(g(1, 131073), torch.ones(1, 131073).char(), activations="int8"),
            "input: expected at most 131072 features .* received 131073",
        ),
        (lambda: ops.pack_gru_weight(g(6, 2), "int8"), "weight_hh: expected int8 with activations"),
        (lambda: ops.pack_lstm_weight(g(8, 2).char(), "eight"), "activations: expected"),
        (lambda: op("linear_quantized")(g(2, 3), g(4, 3).bfloat16(), None, None, True), "weight: expected"),
        (lambda: op("gru_pack")(g(6, 2), True), "weight_hh: expected"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@kinds
def test_packs_for_other_activations_are_refused(kind):
    _, packed = kind.make(7)
    x = torch.randn(3, 2, 13)
    run = getattr(ops, f"{kind.cell}_prepacked")
    with pytest.raises(ValueError, match=r"packed_hh: expected \d+ values, packed for 7 units"):
        run(x, packed)
    plain = packed._replace(packed_hh=getattr(ops, f"pack_{kind.cell}_weight")(g(kind.gates * 7, 7).char()))
    run(x, plain)
    with pytest.raises(ValueError, match=r"packed_hh: expected \d+ values, packed for 7 units"):
        kind.run(x, plain)
    for dtype in (torch.float32, torch.bfloat16):
        other = packed._replace(weight_ih=packed.weight_ih.to(dtype), packed_hh=packed.packed_hh.to(dtype))
        with pytest.raises(ValueError, match=r"weights\.weight_ih: expected int8 with activations"):
            kind.run(x, other)
        arguments = recurrent(kind.cell, prepacked=True)
        with pytest.raises((TypeError, ValueError), match="packed_hh: expected"):
            op(f"{kind.cell}_prepacked")(*arguments.values(), True)
