"""attention and linear_heads against the reference; rows that do not depend on others; what they refuse."""

from __future__ import annotations

import pytest
import torch

from asrkern import ops, reference
from tests.compare import assert_close, assert_same_bits

INF = float("inf")


def make(queries, keys, heads=4, key_heads=4, width=9, value_width=7):
    """Query, key, value, lengths of both."""
    return (
        torch.randn(sum(queries), heads * width),
        torch.randn(sum(keys), key_heads * width),
        torch.randn(sum(keys), key_heads * value_width),
        torch.tensor(queries),
        torch.tensor(keys),
    )


def doubles(tensors):
    return [t.double() if t.is_floating_point() else t for t in tensors]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads, key_heads", [(1, 1), (4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize(
    "queries, keys",
    [([1], [1]), ([3, 1, 0, 5], [3, 7, 2, 1]), ([5], [0]), ([2, 2], [0, 70]), ([211, 50], [211, 33])],
)
@pytest.mark.parametrize("width, value_width", [(1, 1), (9, 40), (64, 64)])
def test_equals_reference(queries, keys, heads, key_heads, width, value_width, causal):
    tensors = make(queries, keys, heads, key_heads, width, value_width)
    options = {"heads": heads, "key_heads": key_heads, "causal": causal}
    expected = reference.attention(*doubles(tensors), **options)
    assert_close(ops.attention(*tensors, **options), expected, 1e-5)
    assert_close(ops.attention(*doubles(tensors), **options), expected, 1e-12)


@pytest.mark.parametrize("shape", [(2, 4, 6, 80), (1, 1, 1, 73), (2, 1, 1, 73), (1, 4, 5, 90), (1, 1, 5, 73)])
@pytest.mark.parametrize("causal", [False, True])
def test_bias(shape, causal):
    tensors = make([5, 3], [73, 11])
    bias = torch.randn(shape)
    bias[torch.rand(shape) < 0.4] = -INF
    expected = reference.attention(*doubles(tensors), bias.double(), heads=4, causal=causal)
    assert_close(ops.attention(*tensors, bias, heads=4, causal=causal), expected, 1e-5)


def test_a_query_that_sees_nothing_gets_zeros():
    tensors = make([2], [70])
    bias = torch.zeros(1, 1, 2, 70)
    bias[..., 1, :] = -INF
    output = ops.attention(*tensors, bias, heads=4)
    assert output[0].all() and not output[1].any()


@pytest.mark.parametrize("where", ["query", "key", "value", "bias"])
def test_nan_stays(where):
    query, key, value, *lengths = make([2], [40])
    bias = torch.full((1, 1, 1, 40), -INF)
    bias[..., 7] = 0
    {"query": query[1:], "key": key[7:], "value": value[7:], "bias": bias[..., 3:4]}[where].fill_(
        float("nan")
    )
    output = ops.attention(query, key, value, *lengths, bias, heads=4)
    assert output[1].isnan().all()
    assert where != "query" or output[0].isfinite().all()


@pytest.mark.parametrize("thread_count", [1, 2, 5])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads, key_heads", [(4, 4), (4, 1)])
def test_rows_are_invariant(heads, key_heads, causal, thread_count, threads):
    queries, keys = [1, 17, 0, 230, 64, 3], [5, 17, 9, 230, 300, 1]
    options = {"heads": heads, "key_heads": key_heads, "causal": causal}
    *tensors, n, m = make(queries, keys, heads, key_heads)
    rows = [t.split(c.tolist()) for t, c in zip(tensors, (n, m, m))]
    alone = [
        ops.attention(*row, torch.tensor([q]), torch.tensor([k]), **options)
        for *row, q, k in zip(*rows, queries, keys)
    ]
    threads(thread_count)
    assert_same_bits(ops.attention(*tensors, n, m, **options), torch.cat(alone))
    order = [4, 0, 3, 5]
    picked = [torch.cat([t[i] for i in order]) for t in rows]
    output = ops.attention(*picked, n[order], m[order], **options)
    assert_same_bits(output, torch.cat([alone[i] for i in order]))
    if not causal:
        # A query alone among its row's.
        assert_same_bits(
            ops.attention(rows[0][3][5:6], rows[1][3], rows[2][3], [1], [230], **options), alone[3][5:6]
        )
    # Padding that is hidden is no padding.
    k, v = (torch.cat([t[3], torch.full_like(t[4], 3.0)]) for t in rows[1:])
    bias = torch.zeros(1, 1, 1, 530).masked_fill(torch.arange(530) >= 230, -INF)
    assert_same_bits(ops.attention(rows[0][3], k, v, [230], [530], bias, **options), alone[3])


def test_any_strides():
    joint = torch.randn(12, 3 * 20)
    q, k, v = joint.split(20, 1)
    lengths = torch.tensor([7, 5])
    expected = ops.attention(q.contiguous(), k.contiguous(), v.contiguous(), lengths, lengths, heads=4)
    assert_same_bits(ops.attention(q, k, v, lengths, lengths, heads=4), expected)
    turned = [t.t().contiguous().t() for t in (q, k, v)]
    assert_same_bits(ops.attention(*turned, lengths, lengths, heads=4), expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"query": torch.randn(5, 30)}, "heads, key_heads: expected a divisor of the 30"),
        ({"query": torch.randn(5, 40)}, "query, key: expected 4 and 4 heads of one width"),
        ({"key": torch.randn(9, 36)}, "value: expected shape"),
        ({"value": torch.randn(8, 26)}, "value: expected 4 heads"),
        ({"query_lengths": [3, 1]}, "query_lengths: expected a sum of 5"),
        ({"query_lengths": [-1, 6]}, "query_lengths: expected values between 0"),
        ({"key_lengths": [2**62, 2**62]}, "key_lengths: expected values between 0"),
        ({"key_lengths": [8, 8]}, "key_lengths: expected a sum of 8"),
        ({"key_lengths": [8]}, "key_lengths: expected 2 integers"),
        ({"key_lengths": [8.0, 0.0]}, "key_lengths: expected an integer"),
        ({"bias": torch.zeros(1, 1, 1, 4)}, "bias: expected shape .* received"),
        ({"bias": torch.zeros(1, 4, 2, 5)}, "bias: expected shape .* received"),
        ({"bias": torch.zeros(3, 4, 3, 5)}, "bias: expected shape .* received"),
        ({"bias": torch.zeros(3, 5)}, "bias: expected 4 dimensions"),
        ({"key_heads": 3}, "heads, key_heads: expected a divisor"),
        ({"heads": 0}, "heads, key_heads: expected a divisor"),
        ({"key": torch.randn(8, 36, dtype=torch.float64)}, "key: expected the dtype"),
        ({"key": None}, "key: expected a Tensor"),
    ],
)
def test_bad_input(change, message):
    query, key, value, *lengths = make([3, 2], [5, 3])
    arguments = {
        "query": query,
        "key": key,
        "value": value,
        "query_lengths": lengths[0],
        "key_lengths": lengths[1],
    }
    with pytest.raises((ValueError, TypeError), match=message):
        ops.attention(**{**arguments, "heads": 4, **change})


def test_no_backward():
    query, *rest = make([3], [5])
    assert not ops.attention(query.requires_grad_(), *rest, heads=4).requires_grad
    with pytest.raises(RuntimeError, match="attention is for inference"):
        torch.func.grad(lambda q: ops.attention(q, *rest, heads=4).sum())(query.detach())


@pytest.mark.parametrize("format", ["float", "int8", "bf16"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rows, heads, width, features", [(1, 1, 1, 1), (7, 4, 21, 50), (40, 3, 32, 100)])
def test_linear_heads(rows, heads, width, features, transposed, format):
    weight, scale = torch.randn(heads * width, features), None
    if format != "float":
        weight, scale = ops.quantize_weight(weight, format)
    x = torch.randn(rows, heads * (width if transposed else features))
    bias = None if transposed else torch.randn(heads * width)
    scale = None if transposed else scale
    options = {"heads": heads, "transposed": transposed}
    output = ops.linear_heads(x, weight, scale, bias, **options)
    expected = reference.linear_heads(
        *doubles(t for t in (x, weight) if t is not None), None, None, **options
    )
    expected = expected if scale is None else expected * scale.double()
    assert_close(output, expected if bias is None else expected + bias.double(), 1e-5)
    for row in range(rows):
        assert_same_bits(
            ops.linear_heads(x[row : row + 1], weight, scale, bias, **options), output[row : row + 1]
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"input": torch.randn(3, 9)}, "input: expected 10 features"),
        ({"weight": torch.randn(7, 5)}, "weight: expected .2 heads"),
        ({"weight": torch.ones(8, 5, dtype=torch.int32)}, "weight: expected a floating-point dtype"),
        ({"bias": torch.randn(5)}, r"bias: expected shape \(8,\)"),
        ({"transposed": True, "input": torch.randn(3, 8)}, "bias: expected None"),
        ({"heads": 0}, "weight: expected .0 heads"),
        ({"weight": None}, "weight: expected a Tensor"),
        ({"input": torch.randn(3, 10, dtype=torch.float64)}, "weight: expected the dtype of input"),
    ],
)
def test_linear_heads_bad_input(change, message):
    arguments = {"input": torch.randn(3, 10), "weight": torch.randn(8, 5), "bias": torch.randn(8), "heads": 2}
    with pytest.raises((ValueError, TypeError), match=message):
        ops.linear_heads(**{**arguments, **change})


def test_heads_that_overflow():
    """Of tensors that are empty, any number of heads fits; UndefinedBehaviorSanitizer watches."""
    most, lengths = 2**63 - 1, torch.tensor([2])
    for call in (
        lambda: torch.ops.asrkern.linear_heads(torch.zeros(3, 4), torch.zeros(0, 4), None, None, most, False),
        lambda: torch.ops.asrkern.linear_heads(torch.zeros(3, 0), torch.zeros(0, 4), None, None, most, True),
        lambda: torch.ops.asrkern.attention(
            torch.zeros(2, 0),
            torch.zeros(2, 0),
            torch.zeros(2, 4),
            lengths,
            lengths,
            None,
            most,
            1,
            False,
            1.0,
        ),
    ):
        with pytest.raises(ValueError, match=f"heads: expected at most .* of 4 features, received {most}"):
            call()
