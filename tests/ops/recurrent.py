"""The tests of a recurrent operation; a subclass says which."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from tests.compare import assert_close, assert_same_bits


def double(values):
    return None if values is None else [None if v is None else v.double() for v in values]


def ragged(rows, steps):
    """Lengths in no order, among them the full length and, with enough rows, 0."""
    lengths = torch.randint(1, steps + 1, (rows,))
    lengths[rows // 2] = steps
    if rows > 2:
        lengths[0] = 0
    return lengths


# What is changed in a call that is right (given the tests), and the message.
BAD = {
    "input rank": (lambda t: dict(input=torch.randn(4, 5)), "input: expected 3 dimensions"),
    "input features": (lambda t: dict(input=torch.randn(4, 3, 6)), r"input: expected 5 features .* received shape \(4, 3, 6\)"),
    "input dtype": (lambda t: dict(input=torch.ones(4, 3, 5, dtype=torch.long)), "input: expected a floating-point dtype"),
    "input type": (lambda t: dict(input=[1.0]), "input: expected a Tensor, received list"),
    "float64 with float32": (lambda t: dict(input=torch.randn(4, 3, 5).double()), "expected the dtype of input"),
    "no frames": (lambda t: dict(input=torch.randn(0, 3, 5)), "input: expected at least one frame"),
    "h0 shape": (lambda t: dict(h0=torch.randn(2, 3, 2)), r"h0: expected shape \(1, 3, 2\), received \(2, 3, 2\)"),
    "lengths too long": (lambda t: dict(lengths=torch.tensor([1, 5, 2])), "lengths: expected values between 0 and the 4 frames.*received 5 at row 1"),
    "lengths negative": (lambda t: dict(lengths=torch.tensor([1, 2, -1])), "lengths: .*received -1 at row 2"),
    "lengths shape": (lambda t: dict(lengths=torch.tensor([1, 2])), r"lengths: expected shape \[3\]"),
    "lengths dtype": (lambda t: dict(lengths=torch.tensor([1.0, 2.0, 3.0])), "lengths: expected an integer dtype"),
    "both": (lambda t: dict(lengths=torch.tensor([1, 2, 3]), batch_sizes=torch.tensor([3]), input=torch.randn(3, 5)), "received both"),
    "batch_sizes grow": (lambda t: dict(batch_sizes=torch.tensor([1, 2]), input=torch.randn(3, 5)), "batch_sizes: .* never grow"),
    "batch_sizes sum": (lambda t: dict(batch_sizes=torch.tensor([2, 2]), input=torch.randn(3, 5)), "batch_sizes: .*sum to the 3 frames"),
    "batch_sizes dtype": (lambda t: dict(batch_sizes=torch.tensor([3.0]), input=torch.randn(3, 5)), "batch_sizes: expected an integer dtype"),
    "weights shape": (lambda t: dict(weights=[torch.randn(2 * t.gates, 5), torch.randn(2 * t.gates, 3)]), "weights.weight_hh: expected shape"),
    "one bias": (lambda t: dict(weights=[torch.randn(2 * t.gates, n) for n in (5, 2)] + [torch.randn(2 * t.gates)]), "bias_ih and bias_hh"),
}  # fmt: skip


class RecurrentTests:
    """op, reference: staticmethods; weights: the class of one direction's; gates; states: how many a cell has."""

    op: Callable
    reference: Callable
    weights: type
    gates: int
    states: int

    def make_weights(
        self, input_size, hidden_size, bidirectional, bias=True, dtype=torch.float32, requires_grad=False
    ):
        def one():
            scale = hidden_size**-0.5
            rows = self.gates * hidden_size
            shapes = [(rows, input_size), (rows, hidden_size)] + ([(rows,)] * 2 if bias else [])
            values = [
                torch.empty(s, dtype=dtype).uniform_(-scale, scale).requires_grad_(requires_grad)
                for s in shapes
            ]
            return self.weights(*values)

        return one(), (one() if bidirectional else None)

    def make_states(self, *shape, **options):
        return [torch.randn(*shape, **options) for _ in range(self.states)]

    @pytest.mark.parametrize(
        "steps, rows, hidden_size", list(itertools.product([1, 63], [1, 7], [1, 5, 500]))
    )
    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_forward_equals_reference(self, steps, rows, hidden_size, bidirectional):
        weights = self.make_weights(13, hidden_size, bidirectional)
        x, lengths = torch.randn(steps, rows, 13), ragged(rows, steps)
        states = self.make_states(1 + bidirectional, rows, hidden_size)
        results = self.op(x, *weights, *states, lengths=lengths)
        expected = self.reference(x.double(), *map(double, weights), *double(states), lengths=lengths)
        for result, wanted in zip(results, expected, strict=True):
            assert_close(result, wanted, 1e-5)

    @pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 13, 30])
    def test_every_row_tile_equals_reference(self, rows):
        weights = self.make_weights(24, 35, True)
        x = torch.randn(6, rows, 24)
        expected = self.reference(x.double(), *map(double, weights))
        assert_close(self.op(x, *weights)[0], expected[0], 1e-5)

    @pytest.mark.parametrize("steps, rows", [(700, 1), (100, 11), (3, 600)])
    def test_more_frames_than_are_projected_at_once(self, steps, rows):
        weights, states = self.make_weights(3, 4, True), self.make_states(2, rows, 4)
        x, lengths = torch.randn(steps, rows, 3), ragged(rows, steps)
        results = self.op(x, *weights, *states, lengths=lengths)
        expected = self.reference(x.double(), *map(double, weights), *double(states), lengths=lengths)
        for result, wanted in zip(results, expected, strict=True):
            assert_close(result, wanted, 1e-5)

    @pytest.mark.parametrize("thread_count", [1, 2, 3])
    def test_weights_that_outgrow_a_cache(self, thread_count, threads):
        threads(thread_count)
        weights = self.make_weights(5, 860, True, requires_grad=True)
        x, lengths = torch.randn(4, 3, 5), torch.tensor([2, 4, 3])
        flat = [w for direction in weights for w in direction]
        doubles = [w.detach().double().requires_grad_() for w in flat]
        output = self.op(x, *weights, lengths=lengths)[0]
        expected = self.reference(x.double(), doubles[:4], doubles[4:], lengths=lengths)[0]
        assert_close(output, expected, 1e-5)
        seed = torch.randn_like(output)
        grads = torch.autograd.grad(output, flat, seed)
        for grad, wanted in zip(grads, torch.autograd.grad(expected, doubles, seed.double()), strict=True):
            assert_close(grad, wanted, 1e-4)

    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_bias_and_batch_first(self, bias, batch_first):
        weights = self.make_weights(6, 9, True, bias)
        x, lengths = torch.randn(7, 4, 6), torch.tensor([3, 7, 0, 5])
        x = x.transpose(0, 1) if batch_first else x
        results = self.op(x, *weights, lengths=lengths, batch_first=batch_first)
        expected = self.reference(x.double(), *map(double, weights), lengths=lengths, batch_first=batch_first)
        for result, wanted in zip(results, expected, strict=True):
            assert_close(result, wanted, 1e-5)

    def test_packed_equals_padded(self):
        weights = self.make_weights(6, 9, True)
        x, lengths = torch.randn(8, 5, 6), torch.tensor([3, 8, 1, 5, 5])
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        states = self.make_states(2, 5, 9)
        in_order = [s[:, packed.sorted_indices] for s in states]
        data, *finals = self.op(packed.data, *weights, *in_order, batch_sizes=packed.batch_sizes)
        output, *expected = self.op(x, *weights, *states, lengths=lengths)
        assert_same_bits(data, pack_padded_sequence(output, lengths, enforce_sorted=False).data)
        for final, wanted in zip(finals, expected, strict=True):
            assert_same_bits(final[:, packed.unsorted_indices], wanted)

    def test_beyond_lengths_is_zero_and_empty_rows_keep_their_states(self):
        weights = self.make_weights(3, 4, True)
        states = self.make_states(2, 3, 4)
        x = torch.full((5, 3, 3), float("nan"))
        x[:2] = 1.0
        output, *finals = self.op(x, *weights, *states, lengths=torch.tensor([2, 0, 1]))
        assert torch.isfinite(output).all()
        assert output[2:].abs().max() == 0 and output[:, 1].abs().max() == 0 and output[1, 2].abs().max() == 0
        for final, initial in zip(finals, states, strict=True):
            assert_same_bits(final[:, 1], initial[:, 1])

    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("hidden_size", [5, 70])
    def test_gradients_equal_reference(self, bidirectional, packed, hidden_size):
        rows, steps = 9, 14
        weights = self.make_weights(11, hidden_size, bidirectional, requires_grad=True)
        x, lengths = torch.randn(steps, rows, 11), ragged(rows, steps)
        how = {"lengths": lengths}
        if packed:
            lengths[0] = 4
            sequence = pack_padded_sequence(x, lengths, enforce_sorted=False)
            x, how = sequence.data, {"batch_sizes": sequence.batch_sizes}
        states = self.make_states(1 + bidirectional, rows, hidden_size, requires_grad=True)
        x.requires_grad_()
        inputs = [x, *states, *(w for direction in weights if direction for w in direction)]
        doubles = [t.detach().double().requires_grad_() for t in inputs]
        first = 1 + self.states
        second = first + len(weights[0])
        outputs = self.op(x, *weights, *states, **how)
        expected = self.reference(
            doubles[0], doubles[first:second], doubles[second:] or None, *doubles[1:first], **how
        )
        seeds = [torch.randn_like(output) for output in outputs]
        grads = torch.autograd.grad(outputs, inputs, seeds)
        expected_grads = torch.autograd.grad(expected, doubles, double(seeds))
        for index, (grad, expected_grad) in enumerate(zip(grads, expected_grads, strict=True)):
            assert_close(grad, expected_grad, 1e-4, f"gradient {index}")

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_gradcheck(self, bidirectional):
        options = dict(dtype=torch.float64, requires_grad=True)
        weights = self.make_weights(3, 4, bidirectional, **options)
        x = torch.randn(5, 3, 3, **options)
        states = self.make_states(1 + bidirectional, 3, 4, **options)
        flat = [w for direction in weights if direction for w in direction]

        def run(x, *rest):
            states, flat = rest[: self.states], rest[self.states :]
            return self.op(x, flat[:4], flat[4:] or None, *states, lengths=torch.tensor([5, 0, 2]))

        assert torch.autograd.gradcheck(run, (x, *states, *flat))

    def test_double_backward_raises(self):
        weights = self.make_weights(3, 4, False, requires_grad=True)
        x = torch.randn(5, 2, 3, requires_grad=True)
        (grad,) = torch.autograd.grad(self.op(x, *weights)[0].sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="double backward"):
            grad.sum().backward()

    @pytest.mark.parametrize("hidden_size", [17, 100])
    @pytest.mark.parametrize("thread_count", [1, 2, 3])
    def test_rows_are_invariant(self, hidden_size, thread_count, threads):
        threads(thread_count)
        steps, rows = 21, 16
        weights = self.make_weights(19, hidden_size, True)
        lengths = torch.randint(1, steps + 1, (rows,))
        x = torch.randn(steps, rows, 19)
        with torch.inference_mode():
            for count in (2, 3, 7, 16):
                # The longest row may be shorter than the padding, and the padding holds anything.
                batch = torch.full((steps + 5, count, 19), float("nan"))
                for i in range(count):
                    batch[: lengths[i], i] = x[: lengths[i], i]
                output, *finals = self.op(batch, *weights, lengths=lengths[:count])
                for i in range(count):
                    alone, *alone_finals = self.op(x[: lengths[i], i : i + 1].contiguous(), *weights)
                    assert_same_bits(output[: lengths[i], i], alone[:, 0], f"row {i} of {count}")
                    for final, wanted in zip(finals, alone_finals, strict=True):
                        assert_same_bits(final[:, i], wanted[:, 0], f"final state of row {i} of {count}")

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_more_threads_than_cores_change_nothing(self, bidirectional, threads):
        weights = self.make_weights(8, 150, bidirectional)
        x, lengths = torch.randn(12, 5, 8), torch.tensor([12, 3, 0, 7, 12])
        results = []
        for count in (1, 2, 5, 8):
            threads(count)
            results.append(self.op(x, *weights, lengths=lengths))
        for others in results[1:]:
            for result, wanted in zip(others, results[0], strict=True):
                assert_same_bits(result, wanted)

    def test_bfloat16_is_computed_in_float32(self):
        half = [self.weights(*(w.bfloat16() for w in one)) for one in self.make_weights(6, 9, True)]
        x = torch.randn(7, 4, 6).bfloat16()
        output = self.op(x, *half)[0]
        expected = self.reference(x.double(), *map(double, half))[0]
        assert output.dtype == torch.bfloat16
        assert_same_bits(output, expected.bfloat16())

    @pytest.mark.parametrize("case", BAD)
    def test_bad_input(self, case):
        change, message = BAD[case]
        arguments = dict(input=torch.randn(4, 3, 5), weights=self.make_weights(5, 2, False)[0])
        with pytest.raises((ValueError, TypeError), match=message):
            self.op(**{**arguments, **change(self)})
