"""BatchNorm over the valid frames of a padded batch, fused with a clamp (Hardtanh, ReLU) and the time mask."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asrkern import _library
from asrkern._lengths import Lengths
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

LAYOUTS = ("RC", "NTC", "TNC", "NCT", "NCFT")


class BatchNormActResult(NamedTuple):
    """output: as the input; mean, var: [channels], var biased; count: 0-dimensional int64, values per channel."""

    output: Tensor
    mean: Tensor
    var: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count


def batch_norm_act(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    lengths: Lengths | None = None,
    *,
    layout: str,
    training: bool,
    stats: str = "valid",
    eps: float = 1e-5,
    activation: tuple[float, float] | None = None,
) -> BatchNormActResult:
    """``mask(clamp((x − mean)/√(var + eps) · weight + bias))`` (Ioffe & Szegedy 2015; sequence-wise: Laurent et al. 2016).

    Functional: running statistics are not touched; a layer updates them from the returned mean, var and count.

    Args:
        input: a dimension for each letter of layout. float32 or float64; lower precisions are computed in float32.
        weight, bias: [channels] or None for 1 and 0.
        running_mean, running_var: [channels], the statistics that are used when not training.
        lengths: [N] integers, valid frames of each row; None: all. Frames beyond are 0 in the output.
        layout: "RC" (rows of channels), "NTC", "TNC", "NCT" or "NCFT" (N rows, C channels, F frequency, T time).
        training: normalise by the statistics of this input, which are returned.
        stats: "valid" takes statistics over valid frames, "padded" over all of them.
        eps: added to the variance.
        activation: (min, max) to clamp to: Hardtanh; ReLU is (0, inf); None is none.

    Returns:
        :class:`BatchNormActResult`; only output is differentiable.

    Raises:
        TypeError: not a floating-point tensor, or float64 with another dtype.
        ValueError: shapes, devices, lengths, layout, stats or activation that do not fit, or an empty batch in
            training.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, received {layout!r}")
    check_stats(stats)
    check_tensor("input", input, (len(layout),))
    channels = input.shape[layout.index("C")]
    if training and any(extent == 0 for extent in input.shape):
        raise ValueError(
            f"input: expected at least one value in every dimension, received shape {tuple(input.shape)}"
        )
    for name, value in zip(
        ("weight", "bias", "running_mean", "running_var"), (weight, bias, running_mean, running_var)
    ):
        if value is not None:
            check_shape(name, value, (channels,))
            check_same_device(name, value, input)
    if not training and (running_mean is None or running_var is None):
        raise ValueError(
            "running_mean: expected running_mean and running_var when not training, received None"
        )
    if lengths is not None and layout == "RC":
        raise ValueError(
            'lengths: expected None for layout "RC", which has no rows of frames, received a tensor'
        )
    rows = 1 if layout == "RC" else input.shape[layout.index("N")]
    lengths = lengths_on(input.device, "lengths", lengths, rows)
    dtype = compute_dtype(input, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    result_dtype = output_dtype(input, weight)
    kernel = takes_kernel(input)
    args = (
        # The GPU kernel reads and writes lower precisions as they are.
        input if kernel and result_dtype == input.dtype else input.to(dtype),
        cast(weight, dtype),
        cast(bias, dtype),
        cast(running_mean, dtype),
        cast(running_var, dtype),
        lengths,
        *(layout, training, stats == "padded", float(eps), *clamp_bounds(activation)),
    )
    result = call("batch_norm_act", *args) if kernel or input.device.type == "cpu" else _composed(*args)
    return BatchNormActResult(result[0].to(result_dtype), *result[1:])


def check_stats(stats: str) -> None:
    """Raise ValueError unless stats is "valid" or "padded"."""
    if stats not in ("valid", "padded"):
        raise ValueError(f'stats: expected "valid" or "padded", received {stats!r}')


def takes_kernel(input: Tensor) -> bool:
    """Whether asrkern's GPU kernel computes this input."""
    return input.is_cuda and input.dtype != torch.float64 and _library.cuda_kernel("batch_norm_act")


def _composed(
    input, weight, bias, running_mean, running_var, lengths, layout, training, count_padding, eps, low, high
):
    """torch's own operations, where asrkern has no kernel for the device."""
    channel, time = layout.index("C"), layout.find("T")
    others = [d for d in range(input.dim()) if d != channel]
    per_channel = [1] * input.dim()
    per_channel[channel] = -1
    valid = None
    if lengths is not None:
        batch = layout.index("N")
        frames = torch.arange(input.shape[time], device=input.device) < lengths[:, None]
        shape = [1] * input.dim()
        shape[batch], shape[time] = input.shape[batch], input.shape[time]
        valid = (frames if batch < time else frames.t()).reshape(shape)
    counted = None if count_padding else valid
    inner = input.shape[layout.index("F")] if "F" in layout else 1
    values = input.numel() // input.shape[channel]
    count = input.new_full((), values, dtype=torch.int64) if counted is None else counted.sum() * inner
    if training and counted is None:
        mean, var = input.mean(others), input.var(others, unbiased=False)
    elif training:
        mean = input.masked_fill(~counted, 0).sum(others) / count
        deviation = (input - mean.reshape(per_channel)).masked_fill(~counted, 0)
        var = deviation.square().sum(others) / count
    else:
        mean, var = running_mean.clone(), running_var.clone()
    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
    output = (input - mean.reshape(per_channel)) * scale.reshape(per_channel)
    if bias is not None:
        output = output + bias.reshape(per_channel)
    output = output.clamp(low, high)
    if valid is not None:
        output = output.masked_fill(~valid, 0)
    return output, mean.detach(), var.detach(), count


@register_fake("asrkern::batch_norm_act")
def _fake(
    input, weight, bias, running_mean, running_var, lengths, layout, training, count_padding, eps, min, max
):  # fmt: skip
    channels = input.shape[layout.index("C")]
    return (
        torch.empty_like(input, memory_format=torch.contiguous_format),
        *(input.new_empty(channels, dtype=compute_dtype(input)) for _ in range(2)),
        input.new_empty((), dtype=torch.int64),
    )


@register_fake("asrkern::batch_norm_act_backward")
def _fake_backward(
    grad_output, input, weight, bias, mean, var, lengths, layout, training, count_padding, eps, min, max
):  # fmt: skip
    channels = input.shape[layout.index("C")]
    return (
        torch.empty_like(input, memory_format=torch.contiguous_format),
        *(input.new_empty(channels, dtype=compute_dtype(input)) for _ in range(2)),
    )


@torch.library.impl("asrkern::batch_norm_act", "cuda")
def _cuda(*args):
    # Triton takes seconds to import.
    from asrkern.ops import _batch_norm_act_cuda

    return _batch_norm_act_cuda.forward(*args)


@torch.library.impl("asrkern::batch_norm_act_backward", "cuda")
def _cuda_backward(*args):
    from asrkern.ops import _batch_norm_act_cuda

    return _batch_norm_act_cuda.backward(*args)


def _setup_context(ctx, inputs, output):
    input, weight, bias, _, _, lengths, *ctx.options = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(input, weight, bias, output[1], output[2], lengths)


def _backward(ctx, grad_output, *_):
    input, weight, bias, mean, var, lengths = ctx.saved_tensors
    grad_input, grad_weight, grad_bias = call(
        "batch_norm_act_backward", grad_output, input, weight, bias, mean, var, lengths, *ctx.options
    )
    grads = (grad_input, None if weight is None else grad_weight, None if bias is None else grad_bias)
    return (*grads, *[None] * 9)


register_autograd("batch_norm_act", _backward, _setup_context)
raise_on_double_backward("batch_norm_act_backward")
