"""linear and linear_quantized against the reference; rows that do not depend on others."""

import itertools

import pytest
import torch

from asrkern import ops, reference
from tests.compare import assert_close, assert_same_bits


@pytest.mark.parametrize(
    "rows, features, outputs", list(itertools.product([1, 7, 25, 200], [1, 63, 500], [1, 29, 100]))
)
def test_equals_reference(rows, features, outputs):
    x, weight, bias = torch.randn(rows, features), torch.randn(outputs, features), torch.randn(outputs)
    assert_close(
        ops.linear(x, weight, bias), reference.linear(x.double(), weight.double(), bias.double()), 1e-5
    )
    assert_close(ops.linear(x, weight), reference.linear(x.double(), weight.double()), 1e-5)


@pytest.mark.parametrize("rows", [1, 5, 50])
def test_thousands_of_features_are_summed_by_blocks(rows):
    """One chain of 10,240 products would be off by 1.4e-6 to 4e-6."""
    x, weight = torch.randn(rows, 10_240), torch.randn(65, 10_240)
    assert_close(ops.linear(x, weight), reference.linear(x.double(), weight.double()), 8e-7)


def test_gradients_equal_reference():
    tensors = [torch.randn(3, 5, 40), torch.randn(33, 40), torch.randn(33)]
    tensors = [t.requires_grad_() for t in tensors]
    doubles = [t.detach().double().requires_grad_() for t in tensors]
    output, expected = ops.linear(*tensors), reference.linear(*doubles)
    seed = torch.randn_like(output)
    grads = torch.autograd.grad(output, tensors, seed)
    for grad, expected_grad in zip(grads, torch.autograd.grad(expected, doubles, seed.double())):
        assert_close(grad, expected_grad, 1e-4)


def test_gradcheck():
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 5), (4, 5), (4,))]
    assert torch.autograd.gradcheck(ops.linear, tensors)


@pytest.mark.parametrize("thread_count", [1, 2, 5])
def test_rows_are_invariant(thread_count, threads):
    x, weight, bias = torch.randn(200, 300), torch.randn(70, 300), torch.randn(70)
    alone = torch.cat([ops.linear(row[None], weight, bias) for row in x])
    threads(thread_count)
    for rows in (2, 3, 7, 16, 200):
        assert_same_bits(ops.linear(x[:rows], weight, bias), alone[:rows], f"{rows} rows")
        assert_same_bits(
            ops.linear(x[:rows].flip(0), weight, bias).flip(0), alone[:rows], f"{rows} rows, reversed"
        )


def test_no_rows():
    assert ops.linear(torch.randn(0, 3), torch.randn(4, 3)).shape == (0, 4)


@pytest.mark.parametrize(
    "args, message",
    [
        ((torch.randn(2, 3), torch.randn(4, 5)), r"input: expected 5 features .* received shape \(2, 3\)"),
        ((torch.randn(2, 3), torch.randn(4, 3, 1)), "weight: expected 2 dimensions"),
        (
            (torch.randn(2, 3), torch.randn(4, 3), torch.randn(3)),
            r"bias: expected shape \(4,\), received \(3,\)",
        ),
        ((torch.randn(2, 3).double(), torch.randn(4, 3)), "weight: expected the dtype of input"),
        ((torch.ones(2, 3, dtype=torch.int32), torch.randn(4, 3)), "input: expected a floating-point dtype"),
        ((torch.randn(2, 3, device="meta"), torch.randn(4, 3)), "weight: expected device meta"),
    ],
)
def test_bad_input(args, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ops.linear(*args)


@pytest.mark.parametrize("format", ["int8", "bf16"])
@pytest.mark.parametrize("rows, features, outputs", [(1, 500, 29), (7, 63, 100), (40, 301, 33)])
def test_quantized_equals_its_own_weights(format, rows, features, outputs):
    x, bias = torch.randn(rows, features), torch.randn(outputs)
    weight, scale = ops.quantize_weight(torch.randn(outputs, features), format)
    widened = weight.double() if scale is None else weight.double() * scale.double()[:, None]
    output = ops.linear_quantized(x, weight, scale, bias)
    assert_close(output, reference.linear(x.double(), widened, bias.double()), 1e-5)
    for row in range(rows):
        assert_same_bits(
            ops.linear_quantized(x[row : row + 1], weight, scale, bias)[0], output[row], f"row {row}"
        )


def test_quantized_weights_round_to_nearest():
    weight = torch.randn(40, 300)
    weight[3] = 0
    int8, scale = ops.quantize_weight(weight, "int8")
    assert int8.abs().amax(1)[scale > 0].max() == 127 and (int8[3] == 0).all()
    assert ((int8 * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()
    bf16, none = ops.quantize_weight(weight, "bf16")
    assert none is None and bf16.dtype == torch.bfloat16 and torch.equal(bf16, weight.bfloat16())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ops.quantize_weight(torch.randn(3, 4), "int4"), "format: expected .* received 'int4'"),
        (
            lambda: ops.quantize_weight(torch.full((3, 4), float("nan")), "int8"),
            "weight: expected finite values",
        ),
        (
            lambda: ops.linear_quantized(torch.randn(2, 3), torch.randn(4, 3)),
            "weight: expected int8 or bfloat16",
        ),
        (
            lambda: ops.linear_quantized(torch.randn(2, 3), torch.ones(4, 5, dtype=torch.int8)),
            "input: expected",
        ),
        (
            lambda: ops.linear_quantized(
                torch.randn(2, 3), torch.ones(4, 3, dtype=torch.int8), torch.ones(3)
            ),
            r"scale: expected shape \(4,\)",
        ),
    ],
)
def test_quantized_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
