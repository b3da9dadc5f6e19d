"""A masked convolution and the training BatchNorm after it, in one operation: the convolution makes the statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asrkern._lengths import Lengths
from asrkern.ops._autograd import call, register_autograd
from asrkern.ops._common import cast, clamp_bounds, compute_dtype, register_fake
from asrkern.ops.batch_norm_act import BatchNormActResult, batch_norm_act, check_stats
from asrkern.ops.batch_norm_act import takes_kernel as batch_norm_takes_kernel
from asrkern.ops.masked_conv2d import (
    check_masked_conv2d,
    convolution_gradients,
    mask_frames,
    masked_conv2d,
    output_shape,
    resolve_output_lengths,
)
from asrkern.ops.masked_conv2d import takes_kernel as convolution_takes_kernel


def masked_conv2d_batch_norm_act(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *,
    lengths: Lengths | None = None,
    output_lengths: Lengths | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    stats: str = "valid",
    eps: float = 1e-5,
    activation: tuple[float, float] | None = None,
) -> BatchNormActResult:
    """``batch_norm_act(masked_conv2d(x), training=True)``; on a GPU it reads the convolution's output once less.

    Args:
        input, weight, bias, lengths, output_lengths, stride, padding: as in :func:`masked_conv2d`.
        norm_weight, norm_bias, stats, eps, activation: as in :func:`batch_norm_act`, for layout "NCFT".

    Returns:
        :class:`BatchNormActResult`; only output is differentiable.

    Raises:
        TypeError, ValueError: as :func:`masked_conv2d` and :func:`batch_norm_act`.
    """
    geometry: dict[str, Any] = {
        "lengths": lengths,
        "output_lengths": output_lengths,
        "stride": stride,
        "padding": padding,
    }
    if not _takes_kernel(input, weight, bias, norm_weight, norm_bias):
        convolved = masked_conv2d(input, weight, bias, **geometry)
        after = resolve_output_lengths(lengths, output_lengths, weight, stride, padding)
        return batch_norm_act(
            convolved, norm_weight, norm_bias, None, None, after,
            layout="NCFT", training=True, stats=stats, eps=eps, activation=activation,
        )  # fmt: skip
    per_channel = {"bias": bias, "norm_weight": norm_weight, "norm_bias": norm_bias}
    lengths, output_lengths = check_masked_conv2d(input, weight, per_channel, **geometry)
    check_stats(stats)
    after = resolve_output_lengths(lengths, output_lengths, weight, stride, padding)
    output, _, mean, var, count = call(
        "masked_conv2d_batch_norm_act", input, weight, *(cast(t, torch.float32) for t in per_channel.values()), lengths, after,
        list(stride), list(padding), stats == "padded", float(eps), *clamp_bounds(activation),
    )  # fmt: skip
    return BatchNormActResult(output, mean, var, count)


def _takes_kernel(input, weight, bias, norm_weight, norm_bias) -> bool:
    tensors = [input, weight, *(t for t in (bias, norm_weight, norm_bias) if t is not None)]
    return (
        isinstance(input, Tensor)
        and all(isinstance(t, Tensor) and t.dtype == input.dtype for t in tensors)
        and convolution_takes_kernel(input)
        and batch_norm_takes_kernel(input)
    )


@register_fake("asrkern::masked_conv2d_batch_norm_act")
def _fake(input, weight, bias, norm_weight, norm_bias, lengths, output_lengths, stride, padding, *_):
    size = output_shape(input, weight, stride, padding)
    output, convolved = input.new_empty(size), input.new_empty(size)
    mean, var = (input.new_empty(size[1], dtype=compute_dtype(input)) for _ in range(2))
    return output, convolved, mean, var, input.new_empty((), dtype=torch.int64)


@torch.library.impl("asrkern::masked_conv2d_batch_norm_act", "cuda")
def _cuda(*args):
    # Triton takes seconds to import.
    from asrkern.ops import _masked_conv2d_cuda

    return _masked_conv2d_cuda.forward_batch_norm_act(*args)


def _setup_context(ctx, inputs, output):
    input, weight, bias, norm_weight, norm_bias, lengths, output_lengths, *options = inputs
    ctx.stride, ctx.padding, *ctx.options = options
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(input, weight, bias, norm_weight, norm_bias, lengths, output_lengths, *output[1:4])


def _backward(ctx, grad, *_):
    input, weight, bias, norm_weight, norm_bias, lengths, output_lengths, convolved, mean, var = (
        ctx.saved_tensors
    )
    grad, grad_norm_weight, grad_norm_bias = call(
        "batch_norm_act_backward",
        grad,
        convolved,
        norm_weight,
        norm_bias,
        mean,
        var,
        output_lengths,
        "NCFT",
        True,
        *ctx.options,
    )
    count_padding = ctx.options[0]
    if count_padding:
        # The convolution's output is masked, whatever the statistics make of its padding.
        grad = mask_frames(grad, output_lengths)
    grad_bias = None if bias is None else grad.sum((0, 2, 3), dtype=bias.dtype)
    grad_input, grad_weight = convolution_gradients(
        grad, input, weight, lengths, output_lengths, ctx.stride, ctx.padding, ctx.needs_input_grad[:2]
    )
    grads = (
        None if norm_weight is None else grad_norm_weight,
        None if norm_bias is None else grad_norm_bias,
    )
    return grad_input, grad_weight, grad_bias, *grads, *[None] * 8


register_autograd("masked_conv2d_batch_norm_act", _backward, _setup_context)
