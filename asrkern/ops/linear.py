"""Fully connected layer whose rows do not depend on the batch that they are computed in."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.ops._autograd import call, detached, not_differentiable, register_autograd
from asrkern.ops._common import (
    cast,
    check_int8_weight,
    check_same_device,
    check_shape,
    check_tensor,
    compute_dtype,
    output_dtype,
    register_fake,
    takes_int8,
)

# Of a weight that is being rounded: a megabyte of float32.
_VALUES_AT_ONCE = 2**18


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``y = x Wᵀ + b``.

    Each output is the sum of its blocks of 256 input features, in ascending order, and a block one chain of fused
    multiply-adds. So a row is bit-identical whatever rows are computed with it (stock ``F.linear`` changes with the
    number of rows), and its error does not grow along thousands of features.

    Args:
        input: [..., in_features], float32 or float64; lower precisions are computed in float32.
        weight: [out_features, in_features].
        bias: [out_features] or None.

    Returns:
        [..., out_features] in the common dtype of input and weight.

    Raises:
        TypeError: not a floating-point tensor, or float64 with another dtype.
        ValueError: shapes or devices that do not fit.
    """
    check_tensor("input", input)
    check_tensor("weight", weight, (2,))
    out_features, in_features = weight.shape
    if input.dim() < 1 or input.shape[-1] != in_features:
        raise ValueError(
            f"input: expected {in_features} features in the last dimension, received shape {tuple(input.shape)}"
        )
    check_same_device("weight", weight, input)
    if bias is not None:
        check_shape("bias", bias, (out_features,))
        check_same_device("bias", bias, input)
    dtype = compute_dtype(input, weight=weight, bias=bias)
    if input.device.type != "cpu":
        return torch.nn.functional.linear(cast(input, dtype), cast(weight, dtype), cast(bias, dtype)).to(
            output_dtype(input, weight)
        )
    output = call("linear", input.to(dtype), weight.to(dtype), cast(bias, dtype))
    return output.to(output_dtype(input, weight))


def quantize_weight(weight: Tensor, format: str) -> tuple[Tensor, Tensor | None]:
    """A weight in fewer bits, and the factor for each of its rows.

    Args:
        weight: [out_features, in_features], floating-point.
        format: "int8" (symmetric, each row scaled so that its largest magnitude is 127) or "bf16".

    Returns:
        The weight as int8 or bfloat16, and its scale [out_features] in float32, or None for bf16.

    Raises:
        ValueError: another format, or a weight that is not finite.
    """
    if format not in ("int8", "bf16"):
        raise ValueError(f'format: expected "int8" or "bf16", received {format!r}')
    check_tensor("weight", weight, (2,))
    weight = weight.detach()
    # By parts, so that what is needed meanwhile has a part's size.
    rows = max(1, _VALUES_AT_ONCE // max(1, weight.shape[1]))
    if not all(part.isfinite().all() for part in weight.split(rows)):
        raise ValueError("weight: expected finite values, received NaN or infinity")
    if format == "bf16":
        return weight.to(torch.bfloat16, copy=True), None
    rounded = torch.empty_like(weight, dtype=torch.int8, memory_format=torch.contiguous_format)
    scale = weight.new_empty(weight.shape[0], dtype=torch.float32)
    for part, of, to in zip(weight.split(rows), scale.split(rows), rounded.split(rows)):
        values = part.float()
        largest = values.abs().amax(1) / 127
        # A row of zeros has any scale.
        of.copy_(torch.where(largest > 0, largest, 1.0))
        to.copy_((values / of[:, None]).round())
    return rounded, scale


def linear_quantized(
    input: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    activations: str = "float32",
) -> Tensor:
    """``y = (x Qᵀ) · scale + b`` for inference: :func:`linear` with a weight of :func:`quantize_weight`.

    Computed in float32, in the same order as linear: rows are bit-identical whatever rows they are computed with.

    With ``activations="int8"`` each row x is rounded to q = round(127 x / max|x|) first, and y = Σ q·Q · (max|x| / 127 ·
    scale) + b: sums of integers, exact in any order, so that a row's bits are the same in every instruction set, too. A row
    that is not finite gives NaN; one whose values are all below 2^-100 counts as zeros.

    Args:
        input: [..., in_features] on the CPU; computed in float32.
        weight: [out_features, in_features], int8 or bfloat16.
        scale, bias: [out_features] or None for 1 and 0.
        activations: "float32", or "int8" for an int8 weight of at most 131072 in_features.

    Returns:
        [..., out_features] in the dtype of input. Not differentiable.

    Raises:
        TypeError: the weight is neither int8 nor bfloat16, or input is not floating-point.
        ValueError: shapes or devices that do not fit.
    """
    int8_activations = takes_int8(activations)
    check_tensor("input", input)
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight: expected a Tensor, received {type(weight).__name__}")
    if weight.dtype not in (torch.int8, torch.bfloat16):
        raise TypeError(f"weight: expected int8 or bfloat16, received {weight.dtype}")
    if weight.dim() != 2 or input.dim() < 1 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"input: expected [..., in_features] and a weight [out_features, in_features], received shapes "
            f"{tuple(input.shape)} and {tuple(weight.shape)}"
        )
    if input.device.type != "cpu":
        raise ValueError(f"input: expected a tensor on the CPU, received one on {input.device}")
    for name, value in (("scale", scale), ("bias", bias)):
        if value is not None:
            check_shape(name, value, (weight.shape[0],))
            check_same_device(name, value, input)
    check_int8_weight("weight", weight, int8_activations)
    floats = (cast(value, torch.float32) for value in (scale, bias))
    return call("linear_quantized", detached(input).float(), weight, *floats, int8_activations).to(
        input.dtype
    )


@register_fake("asrkern::linear_quantized")
def _fake_quantized(input, weight, scale, bias, int8_activations=False):
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


@register_fake("asrkern::linear")
def _fake(input, weight, bias):
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def _setup_context(ctx, inputs, output):
    input, weight, bias = inputs
    ctx.save_for_backward(input, weight)
    ctx.has_bias = bias is not None


def _backward(ctx, grad):
    input, weight = ctx.saved_tensors
    # Not −1, which is ambiguous where there are no features.
    count = grad.shape[:-1].numel()
    rows = grad.reshape(count, grad.shape[-1])
    with torch.autocast(grad.device.type, enabled=False):
        grad_input = (rows @ weight).reshape(input.shape) if ctx.needs_input_grad[0] else None
        grad_weight = rows.t() @ input.reshape(count, input.shape[-1]) if ctx.needs_input_grad[1] else None
    return grad_input, grad_weight, rows.sum(0) if ctx.has_bias else None


register_autograd("linear", _backward, _setup_context)
not_differentiable("linear_quantized")
