import itertools

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from asrkern import ops, reference
from asrkern.ops import GRUWeights
from tests.compare import assert_close, assert_same_bits


def make_weights(input_size, hidden_size, bidirectional, bias=True, dtype=torch.float32, requires_grad=False):
    def one():
        scale = hidden_size**-0.5
        shapes = [(3 * hidden_size, input_size), (3 * hidden_size, hidden_size)]
        shapes += [(3 * hidden_size,)] * 2 if bias else []
        values = [
            torch.empty(s, dtype=dtype).uniform_(-scale, scale).requires_grad_(requires_grad) for s in shapes
        ]
        return GRUWeights(*values)

    return one(), (one() if bidirectional else None)


def double(weights):
    return None if weights is None else GRUWeights(*(None if w is None else w.double() for w in weights))


def ragged(rows, steps):
    """Lengths in no order, among them the full length and, with enough rows, 0."""
    lengths = torch.randint(1, steps + 1, (rows,))
    lengths[rows // 2] = steps
    if rows > 2:
        lengths[0] = 0
    return lengths


@pytest.mark.parametrize("steps, rows, hidden_size", list(itertools.product([1, 63], [1, 7], [1, 5, 500])))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_forward_equals_reference(steps, rows, hidden_size, bidirectional):
    weights = make_weights(13, hidden_size, bidirectional)
    x, lengths = torch.randn(steps, rows, 13), ragged(rows, steps)
    h0 = torch.randn(1 + bidirectional, rows, hidden_size)
    output, h_n = ops.gru(x, *weights, h0=h0, lengths=lengths)
    expected = reference.gru(x.double(), *map(double, weights), h0=h0.double(), lengths=lengths)
    assert_close(output, expected[0], 1e-5, "output")
    assert_close(h_n, expected[1], 1e-5, "h_n")


@pytest.mark.parametrize("rows", [1, 2, 5, 9, 13, 30])
def test_every_row_tile_equals_reference(rows):
    weights = make_weights(24, 35, True)
    x = torch.randn(6, rows, 24)
    output, _ = ops.gru(x, *weights)
    expected, _ = reference.gru(x.double(), *map(double, weights))
    assert_close(output, expected, 1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_bias_and_batch_first(bias, batch_first):
    weights = make_weights(6, 9, True, bias)
    x, lengths = torch.randn(7, 4, 6), torch.tensor([3, 7, 0, 5])
    x = x.transpose(0, 1) if batch_first else x
    output, h_n = ops.gru(x, *weights, lengths=lengths, batch_first=batch_first)
    expected = reference.gru(x.double(), *map(double, weights), lengths=lengths, batch_first=batch_first)
    assert_close(output, expected[0], 1e-5)
    assert_close(h_n, expected[1], 1e-5)


def test_packed_equals_padded():
    weights = make_weights(6, 9, True)
    x, lengths = torch.randn(8, 5, 6), torch.tensor([3, 8, 1, 5, 5])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    h0 = torch.randn(2, 5, 9)
    data, h_n = ops.gru(
        packed.data, *weights, h0=h0[:, packed.sorted_indices], batch_sizes=packed.batch_sizes
    )
    output, expected_h_n = ops.gru(x, *weights, h0=h0, lengths=lengths)
    assert_same_bits(data, pack_padded_sequence(output, lengths, enforce_sorted=False).data)
    assert_same_bits(h_n[:, packed.unsorted_indices], expected_h_n)


def test_beyond_lengths_is_zero_and_empty_rows_keep_h0():
    weights = make_weights(3, 4, True)
    h0 = torch.randn(2, 3, 4)
    output, h_n = ops.gru(torch.full((5, 3, 3), float("nan")).index_fill(0, torch.tensor([0, 1]), 1.0), *weights,
                          h0=h0, lengths=torch.tensor([2, 0, 1]))  # fmt: skip
    assert torch.isfinite(output).all()
    assert output[2:].abs().max() == 0 and output[:, 1].abs().max() == 0 and output[1, 2].abs().max() == 0
    assert_same_bits(h_n[:, 1], h0[:, 1])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("hidden_size", [5, 70])
def test_gradients_equal_reference(bidirectional, packed, hidden_size):
    rows, steps = 9, 14
    weights = make_weights(11, hidden_size, bidirectional, requires_grad=True)
    x, lengths = torch.randn(steps, rows, 11), ragged(rows, steps)
    how = {"lengths": lengths}
    if packed:
        lengths[0] = 4
        sequence = pack_padded_sequence(x, lengths, enforce_sorted=False)
        x, how = sequence.data, {"batch_sizes": sequence.batch_sizes}
    h0 = torch.randn(1 + bidirectional, rows, hidden_size, requires_grad=True)
    x.requires_grad_()
    inputs = [x, h0, *(w for direction in weights if direction for w in direction)]
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    count = len(weights[0])
    reverse = doubles[2 + count :] or None
    output, h_n = ops.gru(x, *weights, h0=h0, **how)
    expected = reference.gru(doubles[0], doubles[2 : 2 + count], reverse, h0=doubles[1], **how)
    seeds = torch.randn_like(output), torch.randn_like(h_n)
    grads = torch.autograd.grad([output, h_n], inputs, seeds)
    expected_grads = torch.autograd.grad(expected, doubles, [s.double() for s in seeds])
    for index, (grad, expected_grad) in enumerate(zip(grads, expected_grads)):
        assert_close(grad, expected_grad, 1e-4, f"gradient {index}")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradcheck(bidirectional):
    weights = make_weights(3, 4, bidirectional, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 3, 3, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(1 + bidirectional, 3, 4, dtype=torch.float64, requires_grad=True)
    flat = [w for direction in weights if direction for w in direction]

    def run(x, h0, *flat):
        return ops.gru(x, flat[:4], flat[4:] or None, h0=h0, lengths=torch.tensor([5, 0, 2]))

    assert torch.autograd.gradcheck(run, (x, h0, *flat))


def test_double_backward_raises():
    weights = make_weights(3, 4, False, requires_grad=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    output, _ = ops.gru(x, *weights)
    (grad,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        grad.sum().backward()


@pytest.mark.parametrize("hidden_size", [17, 100])
@pytest.mark.parametrize("thread_count", [1, 2, 3])
def test_rows_are_invariant(hidden_size, thread_count, threads):
    threads(thread_count)
    steps, rows = 21, 16
    weights = make_weights(19, hidden_size, True)
    lengths = torch.randint(1, steps + 1, (rows,))
    x = torch.randn(steps, rows, 19)
    with torch.inference_mode():
        for count in (2, 3, 7, 16):
            # The longest row may be shorter than the padding, and the padding holds anything.
            batch = torch.full((steps + 5, count, 19), float("nan"))
            for i in range(count):
                batch[: lengths[i], i] = x[: lengths[i], i]
            output, h_n = ops.gru(batch, *weights, lengths=lengths[:count])
            for i in range(count):
                alone, alone_h_n = ops.gru(x[: lengths[i], i : i + 1].contiguous(), *weights)
                assert_same_bits(output[: lengths[i], i], alone[:, 0], f"row {i} of {count}")
                assert_same_bits(h_n[:, i], alone_h_n[:, 0], f"h_n of row {i} of {count}")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_more_threads_than_cores_change_nothing(bidirectional, threads):
    weights = make_weights(8, 150, bidirectional)
    x, lengths = torch.randn(12, 5, 8), torch.tensor([12, 3, 0, 7, 12])
    results = []
    for count in (1, 2, 5, 8):
        threads(count)
        results.append(ops.gru(x, *weights, lengths=lengths))
    for output, h_n in results[1:]:
        assert_same_bits(output, results[0][0])
        assert_same_bits(h_n, results[0][1])


def test_bfloat16_is_computed_in_float32():
    weights = make_weights(6, 9, True)
    half = [GRUWeights(*(w.bfloat16() for w in direction)) for direction in weights]
    x = torch.randn(7, 4, 6).bfloat16()
    output, _ = ops.gru(x, *half)
    expected, _ = reference.gru(x.double(), *map(double, half))
    assert output.dtype == torch.bfloat16
    assert_same_bits(output, expected.bfloat16())


ROWS, STEPS = 3, 4
BAD = {
    "input rank": (dict(input=torch.randn(STEPS, 5)), "input: expected 3 dimensions"),
    "input features": (dict(input=torch.randn(STEPS, ROWS, 6)), r"input: expected 5 features .* received shape \(4, 3, 6\)"),
    "input dtype": (dict(input=torch.ones(STEPS, ROWS, 5, dtype=torch.long)), "input: expected a floating-point dtype"),
    "input type": (dict(input=[1.0]), "input: expected a Tensor, received list"),
    "float64 with float32": (dict(input=torch.randn(STEPS, ROWS, 5).double()), "expected the dtype of input"),
    "empty batch": (dict(input=torch.randn(STEPS, 0, 5)), "input: expected at least one row"),
    "no frames": (dict(input=torch.randn(0, ROWS, 5)), "input: expected at least one row and one frame"),
    "h0 shape": (dict(h0=torch.randn(2, ROWS, 2)), r"h0: expected shape \(1, 3, 2\), received \(2, 3, 2\)"),
    "lengths too long": (dict(lengths=torch.tensor([1, 5, 2])), "lengths: expected values between 0 and the 4 frames.*received 5 at row 1"),
    "lengths negative": (dict(lengths=torch.tensor([1, 2, -1])), "lengths: .*received -1 at row 2"),
    "lengths shape": (dict(lengths=torch.tensor([1, 2])), r"lengths: expected shape \(3,\)"),
    "lengths dtype": (dict(lengths=torch.tensor([1.0, 2.0, 3.0])), "lengths: expected an integer dtype"),
    "lengths type": (dict(lengths=[1, 2, 3]), "lengths: expected a Tensor"),
    "both": (dict(lengths=torch.tensor([1, 2, 3]), batch_sizes=torch.tensor([3]), input=torch.randn(3, 5)), "received both"),
    "batch_sizes grow": (dict(batch_sizes=torch.tensor([1, 2]), input=torch.randn(3, 5)), "batch_sizes: .* never grow"),
    "batch_sizes sum": (dict(batch_sizes=torch.tensor([2, 2]), input=torch.randn(3, 5)), "batch_sizes: .*sum to the 3 frames"),
    "batch_sizes dtype": (dict(batch_sizes=torch.tensor([3.0]), input=torch.randn(3, 5)), "batch_sizes: expected a 1-dim"),
    "weights shape": (dict(weights=GRUWeights(torch.randn(6, 5), torch.randn(6, 3))), "weights.weight_hh: expected shape"),
    "one bias": (dict(weights=GRUWeights(torch.randn(6, 5), torch.randn(6, 2), torch.randn(6))), "bias_ih and bias_hh"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changed, message = BAD[case]
    args = dict(input=torch.randn(STEPS, ROWS, 5), weights=make_weights(5, 2, False)[0])
    with pytest.raises((ValueError, TypeError), match=message):
        ops.gru(**{**args, **changed})
