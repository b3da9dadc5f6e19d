"""Batch statistics over the valid frames of all ranks, for torch.nn.SyncBatchNorm in asrkern's stacks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from asrkern import ops
from asrkern.nn._lengths import by_layout, frame_mask


def synchronises(module: Any) -> bool:
    """Whether this batch norm, in its present mode, takes its statistics over more ranks than its own."""
    return (
        isinstance(module, nn.SyncBatchNorm)
        and module.training
        and torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size(module.process_group) > 1
    )


class _SumOfRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks of a group."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: torch.distributed.ProcessGroup | None) -> Tensor:
        ctx.group = group
        values = values.clone()
        torch.distributed.all_reduce(values, group=group)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _SumOfRanks.apply(grad, ctx.group), None


def synchronised_batch_norm_act(
    module: nn.SyncBatchNorm,
    input: Tensor,
    lengths: Tensor | None,
    *,
    layout: str,
    stats: str,
    activation: tuple[float, float] | None,
) -> ops.BatchNormActResult:
    """:func:`asrkern.ops.batch_norm_act` in training, with mean, var and count of the values of all ranks.

    Composed of torch's operations, in float32 at least. It sums over the ranks twice forward and twice backward.
    """
    channel = layout.index("C")
    others = [axis for axis in range(input.dim()) if axis != channel]
    shape = [1] * input.dim()
    shape[channel] = -1
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    valid = None
    if lengths is not None:
        axes = layout.index("N"), layout.index("T")
        rows, steps = (input.shape[axis] for axis in axes)
        valid = by_layout(frame_mask(lengths, rows, steps, input.device), layout)
    counted = None if stats == "padded" else valid

    def total(values: Tensor) -> Tensor:
        # masked_fill, not a product: padding may hold inf or NaN.
        values = values if counted is None else values.masked_fill(~counted, 0)
        return _SumOfRanks.apply(values.sum(others), module.process_group)

    mine = x[:, :1] if channel == 1 else x[..., :1]
    count = torch.ones_like(mine) if counted is None else counted.expand_as(mine)
    count = count.sum(dtype=torch.int64)
    torch.distributed.all_reduce(count, group=module.process_group)
    mean = total(x) / count
    centred = x - mean.view(shape)
    var = total(centred.square()) / count
    y = centred * torch.rsqrt(var + module.eps).view(shape)
    if module.weight is not None:
        y = y * module.weight.view(shape) + module.bias.view(shape)
    y = y if activation is None else y.clamp(*activation)
    y = y if valid is None else y.masked_fill(~valid, 0)
    return ops.BatchNormActResult(y.to(input.dtype), mean.detach(), var.detach(), count)
