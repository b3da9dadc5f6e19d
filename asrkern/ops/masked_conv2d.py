"""Convolution over (frequency, time) with a per-channel affine map, a clamp and the time mask in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.ops._common import (
    cast,
    check_same_device,
    check_shape,
    check_tensor,
    clamp_bounds,
    compute_dtype,
    lengths_on,
    output_dtype,
)


def conv_output_lengths(lengths: Tensor, kernel_size: int, stride: int = 1, padding: int = 0) -> Tensor:
    """Output frames of a convolution over time, ``(length + 2·padding − kernel_size)//stride + 1`` in exact integers.

    Rows without frames stay without frames, and so do rows shorter than the kernel allows.

    Args:
        lengths: integers of any shape, input frames.
        kernel_size, stride, padding: of the convolution along time, in frames.

    Returns:
        int64, the shape of lengths.
    """
    lengths = lengths.to(torch.int64)
    frames = (lengths + 2 * padding - kernel_size).div(stride, rounding_mode="floor") + 1
    return torch.where(lengths > 0, frames.clamp(min=0), 0)


def _output_size(size: int, kernel_size: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel_size) // stride + 1


def masked_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    output_lengths: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    activation: tuple[float, float] | None = None,
) -> Tensor:
    """``mask(clamp((conv2d(x) + bias) · scale + shift))``: DeepSpeech2's convolution with its BatchNorm folded in.

    Every row is computed as if it were alone: frames beyond its length are read as 0, whatever the batch holds there.
    In inference, float32 on the CPU, a row is bit-identical whatever its batch mates and padding.

    Args:
        input: [N, in_channels, F, T], float32 or float64; lower precisions are computed in float32.
        weight: [out_channels, in_channels, kernel_F, kernel_T].
        bias, scale, shift: [out_channels] or None for 0, 1 and 0.
        lengths: [N] integers, frames of each input row; None: all T.
        output_lengths: [N] integers, frames of each output row; None: exactly what lengths give
            (:func:`conv_output_lengths`).
        stride, padding: (frequency, time).
        activation: (min, max) to clamp to; None is none.

    Returns:
        [N, out_channels, F', T'] in the common dtype of input and weight; 0 beyond each row's output length.

    Raises:
        TypeError: not a floating-point tensor, or float64 with another dtype.
        ValueError: shapes, devices, lengths, stride, padding or activation that do not fit, or an empty batch.
    """
    check_tensor("input", input, (4,))
    check_tensor("weight", weight, (4,))
    check_same_device("weight", weight, input)
    if input.shape[1] != weight.shape[1]:
        raise ValueError(
            f"input: expected {weight.shape[1]} channels, those of weight, received shape {tuple(input.shape)}"
        )
    if any(extent == 0 for extent in input.shape):
        raise ValueError(
            f"input: expected at least one value in every dimension, received shape {tuple(input.shape)}"
        )
    for name, value, least in (("stride", stride, 1), ("padding", padding, 0)):
        if len(value) != 2 or any(v < least for v in value):
            raise ValueError(f"{name}: expected two integers of at least {least}, received {value!r}")
    for axis, name in enumerate(("F (frequency)", "T (time)")):
        if _output_size(input.shape[2 + axis], weight.shape[2 + axis], stride[axis], padding[axis]) < 1:
            raise ValueError(
                f"input: expected {name} of at least {weight.shape[2 + axis] - 2 * padding[axis]}, the kernel's size "
                f"less its padding, received {input.shape[2 + axis]}"
            )
    for name, value in (("bias", bias), ("scale", scale), ("shift", shift)):
        if value is not None:
            check_shape(name, value, (weight.shape[0],))
            check_same_device(name, value, input)
    lengths = lengths_on(input.device, "lengths", lengths, input.shape[0])
    output_lengths = lengths_on(input.device, "output_lengths", output_lengths, input.shape[0])
    dtype = compute_dtype(input, weight=weight, bias=bias, scale=scale, shift=shift)
    tensors = [cast(t, dtype) for t in (input, weight, bias, scale, shift)]
    run = torch.ops.asrkern.masked_conv2d if input.device.type == "cpu" else _composed
    output = run(*tensors, lengths, output_lengths, list(stride), list(padding), *clamp_bounds(activation))
    return output.to(output_dtype(input, weight))


def _frame_mask(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """[N, 1, 1, T] bool, True within each row's length."""
    if lengths is None:
        return None
    return (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None, None, :]


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else torch.where(mask, x, 0)


def _resolved(lengths, output_lengths, weight, stride, padding):
    if output_lengths is None and lengths is not None:
        return conv_output_lengths(lengths, weight.shape[3], stride[1], padding[1])
    return output_lengths


def _composed(input, weight, bias, scale, shift, lengths, output_lengths, stride, padding, low, high):
    """torch's own operations, where asrkern has no kernel for the device."""
    x = _masked(input, _frame_mask(input, lengths))
    y = torch.nn.functional.conv2d(x, weight, bias, stride, padding)
    y = y if scale is None else y * scale[:, None, None]
    y = y if shift is None else y + shift[:, None, None]
    return _masked(
        y.clamp(low, high), _frame_mask(y, _resolved(lengths, output_lengths, weight, stride, padding))
    )


@torch.library.register_fake("asrkern::masked_conv2d")
def _fake(input, weight, bias, scale, shift, lengths, output_lengths, stride, padding, min, max):
    sizes = [_output_size(input.shape[2 + a], weight.shape[2 + a], stride[a], padding[a]) for a in (0, 1)]
    return input.new_empty((input.shape[0], weight.shape[0], *sizes))


def _setup_context(ctx, inputs, output):
    input, weight, bias, scale, shift, lengths, output_lengths, *ctx.geometry, ctx.low, ctx.high = inputs
    ctx.has = [t is not None for t in (bias, scale, shift)]
    ctx.save_for_backward(input, weight, bias, scale, lengths, output_lengths, output)


def _backward(ctx, grad):
    input, weight, bias, scale, lengths, output_lengths, output = ctx.saved_tensors
    stride, padding = ctx.geometry
    mask = _frame_mask(output, _resolved(lengths, output_lengths, weight, stride, padding))
    grad = _masked(torch.where((output > ctx.low) & (output < ctx.high), grad, 0), mask)
    input_mask = _frame_mask(input, lengths)
    x = _masked(input, input_mask)
    grad_scale = grad_shift = None
    with torch.autocast(grad.device.type, enabled=False):
        if ctx.has[2]:
            grad_shift = grad.sum((0, 2, 3))
        if ctx.has[1]:
            # The convolution's own output was never stored.
            grad_scale = (grad * torch.nn.functional.conv2d(x, weight, bias, stride, padding)).sum((0, 2, 3))
            grad = grad * scale[:, None, None]
        grad_input, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad, x, weight, [weight.shape[0]] if ctx.has[0] else None, stride, padding, [1, 1], False, [0, 0], 1,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.has[0]],
        )  # fmt: skip
    if grad_input is not None:
        grad_input = _masked(grad_input, input_mask)
    return grad_input, grad_weight, grad_bias, grad_scale, grad_shift, *[None] * 6


torch.library.register_autograd("asrkern::masked_conv2d", _backward, setup_context=_setup_context)
