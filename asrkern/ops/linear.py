"""Fully connected layer whose rows do not depend on the batch that they are computed in."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.ops._common import (
    cast,
    check_same_device,
    check_shape,
    check_tensor,
    compute_dtype,
    output_dtype,
)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``y = x Wᵀ + b``.

    Each output is one chain of fused multiply-adds over ascending input features, so a row is bit-identical whatever
    rows are computed with it (stock ``F.linear`` changes with the number of rows).

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
    output = torch.ops.asrkern.linear(input.to(dtype), weight.to(dtype), cast(bias, dtype))
    return output.to(output_dtype(input, weight))


@torch.library.register_fake("asrkern::linear")
def _fake(input, weight, bias):
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def _setup_context(ctx, inputs, output):
    input, weight, bias = inputs
    ctx.save_for_backward(input, weight)
    ctx.has_bias = bias is not None


def _backward(ctx, grad):
    input, weight = ctx.saved_tensors
    rows = grad.reshape(-1, grad.shape[-1])
    with torch.autocast(grad.device.type, enabled=False):
        grad_input = (rows @ weight).reshape(input.shape) if ctx.needs_input_grad[0] else None
        grad_weight = rows.t() @ input.reshape(-1, input.shape[-1]) if ctx.needs_input_grad[1] else None
    return grad_input, grad_weight, rows.sum(0) if ctx.has_bias else None


torch.library.register_autograd("asrkern::linear", _backward, setup_context=_setup_context)
