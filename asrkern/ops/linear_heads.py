"""A fully connected layer of each head, for inference."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.ops._autograd import call, detached, not_differentiable
from asrkern.ops._common import (
    cast,
    check_same_device,
    check_shape,
    check_tensor,
    compute_dtype,
    register_fake,
)


def linear_heads(
    input: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    heads: int,
    transposed: bool = False,
) -> Tensor:
    """``(x_h W_hᵀ) · scale_h + b_h`` of each head h, or ``x_h W_h``, for inference on the CPU: backward raises.

    Sums are those of :func:`asrkern.ops.linear`: rows are bit-identical whatever rows they are computed with.

    Args:
        input: [rows, heads · F], or transposed [rows, heads · width].
        weight: [heads · width, F], of head h the h-th ``width`` rows; the dtype of input, or int8 or bfloat16, of
            which the sums are in float32.
        scale: [heads · width] or None; none if transposed.
        bias: [heads · width] or None; none if transposed.
        heads: how many.
        transposed: multiply by W_h, not by its transpose.

    Returns:
        [rows, heads · width], or transposed [rows, heads · F], in the dtype of input.

    Raises:
        TypeError: a dtype that does not fit.
        ValueError: shapes or devices that do not fit.
    """
    check_tensor("input", input, (2,))
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight: expected a Tensor, received {type(weight).__name__}")
    quantized = weight.dtype in (torch.int8, torch.bfloat16)
    if not quantized:
        check_tensor("weight", weight)
    if weight.dim() != 2 or heads < 1 or weight.shape[0] % heads:
        raise ValueError(
            f"weight: expected [{heads} heads · width, features], received shape {tuple(weight.shape)}"
        )
    check_same_device("weight", weight, input)
    if input.device.type not in ("cpu", "meta"):
        raise ValueError(f"input: expected a tensor on the CPU, received one on {input.device}")
    features = weight.shape[0] if transposed else heads * weight.shape[1]
    if input.shape[1] != features:
        raise ValueError(f"input: expected {features} features, received shape {tuple(input.shape)}")
    for name, value in (("scale", scale), ("bias", bias)):
        if value is not None:
            if transposed:
                raise ValueError(f"{name}: expected None for a transposed weight, received a tensor")
            check_shape(name, value, (weight.shape[0],))
            check_same_device(name, value, input)
    dtype = compute_dtype(input, **({} if quantized else {"weight": weight}))
    weight = weight.detach() if quantized else detached(weight).to(dtype)
    scale, bias = (None if t is None else cast(detached(t), dtype) for t in (scale, bias))
    output = call("linear_heads", detached(input).to(dtype), weight, scale, bias, heads, transposed)
    return output.to(input.dtype)


@register_fake("asrkern::linear_heads")
def _fake(input, weight, scale, bias, heads, transposed):
    return input.new_empty(input.shape[0], weight.shape[1] * heads if transposed else weight.shape[0])


not_differentiable("linear_heads")
