"""Convolution over (frequency, time) with a per-channel affine map, a clamp, a max-pool and the time mask in one pass."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from asrkern import _library
from asrkern._lengths import Lengths, as_integers
from asrkern.ops._autograd import call, raise_on_double_backward, register_autograd
from asrkern.ops._common import (
    cast,
    check_same_device,
    check_shape,
    check_tensor,
    clamp_bounds,
    compute_dtype,
    lengths_on,
    output_dtype,
    register_fake,
)


def conv_output_lengths(lengths: Lengths, kernel_size: int, stride: int = 1, padding: int = 0) -> Tensor:
    """Output frames of a convolution over time, ``(length + 2·padding − kernel_size)//stride + 1`` in exact integers.

    Rows without frames stay without frames, and so do rows shorter than the kernel allows.

    Args:
        lengths: integers of any shape, input frames.
        kernel_size, stride, padding: of the convolution along time, in frames.

    Returns:
        int64, the shape of lengths.

    Raises:
        TypeError: lengths are not integers.
    """
    lengths = as_integers("lengths", lengths).to(torch.int64)
    frames = (lengths + 2 * padding - kernel_size).div(stride, rounding_mode="floor") + 1
    return torch.where(lengths > 0, frames.clamp(min=0), 0)


def _output_size(size: int, kernel_size: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel_size) // stride + 1


def check_masked_conv2d(
    input: Tensor,
    weight: Tensor,
    per_channel: dict[str, Tensor | None],
    lengths: Lengths | None,
    output_lengths: Lengths | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int = 1,
) -> tuple[Tensor | None, Tensor | None]:
    """Check the arguments as :func:`masked_conv2d`. Returns (lengths, output_lengths) on the device of input.

    per_channel: name → tensor [out_channels] or None.
    """
    check_tensor("input", input, (4,))
    check_tensor("weight", weight, (4,))
    check_same_device("weight", weight, input)
    if groups != 1:
        if groups != input.shape[1]:
            raise ValueError(
                f"groups: expected 1 or the {input.shape[1]} channels of input, received {groups!r}"
            )
        check_shape("weight", weight, (groups, 1, *weight.shape[2:]))
    elif input.shape[1] != weight.shape[1]:
        raise ValueError(
            f"input: expected {weight.shape[1]} channels, those of weight, received shape {tuple(input.shape)}"
        )
    if any(extent == 0 for extent in input.shape[1:]):
        raise ValueError(
            "input: expected at least one value in every dimension but the first, received shape "
            f"{tuple(input.shape)}"
        )
    if any(extent == 0 for extent in weight.shape):
        raise ValueError(
            f"weight: expected at least one value in every dimension, received shape {tuple(weight.shape)}"
        )
    for name, value, least, most in (("stride", stride, 1, 2**63 - 1), ("padding", padding, 0, 2**31 - 1)):
        if len(value) != 2 or any(v < least for v in value):
            raise ValueError(f"{name}: expected two integers of at least {least}, received {value!r}")
        if any(v > most for v in value):
            raise ValueError(f"{name}: expected two integers of at most {most}, received {value!r}")
    for axis, name in enumerate(("F (frequency)", "T (time)")):
        if _output_size(input.shape[2 + axis], weight.shape[2 + axis], stride[axis], padding[axis]) < 1:
            raise ValueError(
                f"input: expected {name} of at least {weight.shape[2 + axis] - 2 * padding[axis]}, the kernel's size "
                f"less its padding, received {input.shape[2 + axis]}"
            )
    for name, value in per_channel.items():
        if value is not None:
            check_shape(name, value, (weight.shape[0],))
            check_same_device(name, value, input)
    return (
        lengths_on(input.device, "lengths", lengths, input.shape[0]),
        lengths_on(input.device, "output_lengths", output_lengths, input.shape[0]),
    )


def _check_pool(pool: tuple[int, int], sizes: list[int]) -> None:
    """sizes: of the convolution's output, (frequency, time)."""
    if len(pool) != 2 or any(not 1 <= window <= size for window, size in zip(pool, sizes)):
        raise ValueError(
            f"pool: expected two integers from 1 to {tuple(sizes)}, the convolution's output (frequency, time), "
            f"received {pool!r}"
        )


def takes_kernel(input: Tensor) -> bool:
    """Whether asrkern's GPU kernel computes this input."""
    return input.is_cuda and input.dtype != torch.float64 and _library.cuda_kernel("masked_conv2d")


def masked_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    lengths: Lengths | None = None,
    output_lengths: Lengths | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    activation: tuple[float, float] | None = None,
    pool: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """``mask(max_pool(clamp((conv2d(x) + bias) · scale + shift)))``: a convolution with its BatchNorm folded in.

    Every row is computed as if it were alone: frames beyond its length are read as 0, whatever the batch holds there.
    In inference, float32 on the CPU, a row is bit-identical whatever its batch mates and padding. On a GPU, float32
    products are rounded to TF32 where torch allows that to cuDNN (``torch.backends.cudnn.allow_tf32``, its default).
    On the CPU kernels of 5 or more frames go through Fourier space along time, those of 3 through Winograd's transforms:
    a value that is not finite spreads over its tile (:func:`asrkern.ops.conv_tile`).

    Args:
        input: [N, in_channels, F, T], float32 or float64. Lower precisions are computed in float32; or, if weight has
            the same dtype, by asrkern's GPU kernel, multiplied in that dtype and summed in float32.
        weight: [out_channels, in_channels, kernel_F, kernel_T]; with groups [in_channels, 1, kernel_F, kernel_T].
        bias, scale, shift: [out_channels] or None for 0, 1 and 0.
        lengths: [N] integers, frames of each input row; None: all T.
        output_lengths: [N] integers, frames of each output row before the pool; None: exactly what lengths give
            (:func:`conv_output_lengths`).
        stride, padding: (frequency, time).
        activation: (min, max) to clamp to; None is none.
        pool: (bins, frames) of which the maximum is taken, each window next to the last. Those left over at the end of a
            row are dropped, as by ``torch.nn.MaxPool2d(pool)``. A gradient computes the convolution again.
        groups: 1, or in_channels: then each channel has a filter of its own (depthwise).

    Returns:
        [N, out_channels, F' // bins, T' // frames] in the common dtype of input and weight; 0 beyond each row's output
        length, divided by the pool's frames.

    Raises:
        TypeError: not a floating-point tensor, or float64 with another dtype.
        ValueError: shapes, devices, lengths, stride, padding, activation or pool that do not fit, or a row without values.
    """
    lengths, output_lengths = check_masked_conv2d(
        input,
        weight,
        {"bias": bias, "scale": scale, "shift": shift},
        lengths,
        output_lengths,
        stride,
        padding,
        groups,
    )
    _check_pool(pool, output_shape(input, weight, stride, padding)[2:])
    dtype = compute_dtype(input, weight=weight, bias=bias, scale=scale, shift=shift)
    result_dtype = output_dtype(input, weight)
    kernel = takes_kernel(input) and groups == 1
    small = [cast(t, dtype) for t in (bias, scale, shift)]
    if not (kernel and input.dtype == weight.dtype):
        input, weight = input.to(dtype), weight.to(dtype)
    bounds = clamp_bounds(activation)
    args = (
        input,
        weight,
        *small,
        lengths,
        output_lengths,
        list(stride),
        list(padding),
        *bounds,
        list(pool),
        groups,
    )
    output = call("masked_conv2d", *args) if kernel or input.device.type == "cpu" else _composed(*args)
    return output.to(result_dtype)


def mask_frames(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [N, C, F, T] with zeros beyond each row's length."""
    if lengths is None:
        return x
    valid = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
    return torch.where(valid[:, None, None, :], x, 0)


def resolve_output_lengths(lengths, output_lengths, weight, stride, padding):
    """Output frames of each row: the given ones, else those that follow from lengths."""
    if output_lengths is None and lengths is not None:
        return conv_output_lengths(lengths, weight.shape[3], stride[1], padding[1])
    return output_lengths


def output_shape(input, weight, stride, padding):
    """[N, out_channels, F', T'] of a convolution."""
    sizes = [_output_size(input.shape[2 + a], weight.shape[2 + a], stride[a], padding[a]) for a in (0, 1)]
    return (input.shape[0], weight.shape[0], *sizes)


def max_pool(x, lengths, pool):
    """x: [N, C, F, T] and the lengths that it was masked by; 0 beyond those that the pool leaves."""
    if list(pool) == [1, 1]:
        return x
    y = torch.nn.functional.max_pool2d(x, pool)
    return mask_frames(y, None if lengths is None else lengths // pool[1])


def _composed(
    input, weight, bias, scale, shift, lengths, output_lengths, stride, padding, low, high, pool, groups
):
    """torch's own operations, where asrkern has no kernel for the device."""
    x = mask_frames(input, lengths)
    y = torch.nn.functional.conv2d(x, weight, bias, stride, padding, groups=groups)
    y = y if scale is None else y * scale[:, None, None]
    y = y if shift is None else y + shift[:, None, None]
    output_lengths = resolve_output_lengths(lengths, output_lengths, weight, stride, padding)
    return max_pool(mask_frames(y.clamp(low, high), output_lengths), output_lengths, pool)


@register_fake("asrkern::masked_conv2d")
def _fake(
    input,
    weight,
    bias,
    scale,
    shift,
    lengths,
    output_lengths,
    stride,
    padding,
    min,
    max,
    pool=(1, 1),
    groups=1,
):
    rows, channels, bins, frames = output_shape(input, weight, stride, padding)
    return input.new_empty((rows, channels, bins // pool[0], frames // pool[1]))


@torch.library.impl("asrkern::masked_conv2d", "cuda")
def _cuda(*args):
    # Triton takes seconds to import.
    from asrkern.ops import _masked_conv2d_cuda

    return _masked_conv2d_cuda.forward(*args)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.stride, ctx.padding, ctx.low, ctx.high, ctx.pool, ctx.groups = inputs
    ctx.save_for_backward(*tensors, output)


def convolution_gradients(grad, input, weight, lengths, output_lengths, stride, padding, needed, groups=1):
    """Gradients of (input, weight). grad is the masked convolution's, 0 beyond each row's output length."""
    args = (grad, input, weight, lengths, output_lengths, stride, padding)
    # What asrkern's kernels make of it cannot be differentiated again.
    again = torch.is_grad_enabled() and any(x.requires_grad for x in (grad, input, weight))
    taken = grad.device.type == "cpu" and grad.dtype in (torch.float32, torch.float64)
    kernels = taken and groups == 1 and not again
    grad_input = grad_weight = None
    if kernels and needed[0] and _input_gradient_pays(weight.shape, stride, padding):
        grad_input = call("masked_conv2d_backward_input", *args)
    if kernels and needed[1]:
        grad_weight = call("masked_conv2d_backward_weight", *args)
    rest = [needed[0] and grad_input is None, needed[1] and grad_weight is None]
    if any(rest):
        x = mask_frames(input, lengths)
        with torch.autocast(grad.device.type, enabled=False):
            of_input, of_weight, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], groups, [*rest, False]
            )
        grad_input = mask_frames(of_input, lengths) if rest[0] else grad_input
        grad_weight = of_weight if rest[1] else grad_weight
    return grad_input, grad_weight


def _input_gradient_pays(weight_shape, stride, padding):
    """Whether the gradient of the input is a convolution, and one that asrkern's kernels take less time for than torch's
    backward: by Fourier space or by Winograd's transforms, with work enough for each value that is transformed."""
    _, channels, bins, frames = weight_shape
    if stride[1] != 1 or padding[1] >= frames:
        return False
    return (frames >= 5 and bins >= 5) or (frames == 3 and channels >= 32)


def _max_pool_gradient(grad, output, lengths, pool):
    """Gradient of a convolution's output from that of its pool."""
    grad = mask_frames(grad, None if lengths is None else lengths // pool[1])
    _, indices = torch.ops.aten.max_pool2d_with_indices(output, pool)
    return torch.ops.aten.max_pool2d_with_indices_backward(
        grad, output, pool, pool, [0, 0], [1, 1], False, indices
    )


def _backward(ctx, grad):
    input, weight, bias, scale, shift, lengths, output_lengths, output = ctx.saved_tensors
    stride, padding = ctx.stride, ctx.padding
    frames = resolve_output_lengths(lengths, output_lengths, weight, stride, padding)
    if list(ctx.pool) != [1, 1]:
        # What the maximum was taken of was never stored.
        options = stride, padding, ctx.low, ctx.high, [1, 1], ctx.groups
        output = call("masked_conv2d", *ctx.saved_tensors[:-1], *options)
        grad = _max_pool_gradient(grad, output, frames, ctx.pool)
    if ctx.low > -sys.float_info.max or ctx.high < sys.float_info.max:
        grad = torch.where((output > ctx.low) & (output < ctx.high), grad, 0)
    grad = mask_frames(grad, frames)
    grad_bias = grad_scale = grad_shift = None
    # bias, scale and shift are float32 where the rest is float16 or bfloat16.
    if shift is not None:
        grad_shift = grad.sum((0, 2, 3), dtype=shift.dtype)
    if scale is not None:
        # The convolution's own output was never stored.
        x = mask_frames(input, lengths)
        with torch.autocast(grad.device.type, enabled=False):
            bias_of = cast(bias, weight.dtype)
            y = torch.nn.functional.conv2d(x, weight, bias_of, stride, padding, groups=ctx.groups)
        grad_scale = (grad * y).sum((0, 2, 3), dtype=scale.dtype)
        grad = (grad * scale[:, None, None]).to(grad.dtype)
    if bias is not None:
        grad_bias = grad.sum((0, 2, 3), dtype=bias.dtype)
    grad_input, grad_weight = convolution_gradients(
        grad, input, weight, lengths, frames, stride, padding, ctx.needs_input_grad[:2], ctx.groups
    )
    return grad_input, grad_weight, grad_bias, grad_scale, grad_shift, *[None] * 8


register_autograd("masked_conv2d", _backward, _setup_context)


@register_fake("asrkern::masked_conv2d_backward_input")
def _fake_backward_input(grad_output, input, *_):
    return input.new_empty(input.shape)


@register_fake("asrkern::masked_conv2d_backward_weight")
def _fake_backward_weight(grad_output, input, weight, *_):
    return weight.new_empty(weight.shape)


for _name in ("masked_conv2d_backward_input", "masked_conv2d_backward_weight"):
    raise_on_double_backward(_name)
