"""Which modules of a convolutional stack run together: a convolution, its batch norm, its activation, a max-pool."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asrkern.nn._hooks import is_altered
from asrkern.nn.batch_norm import MaskedBatchNorm2d, clamp_range


class Stage(NamedTuple):
    """Modules that run together: a Conv2d that the operation can run (or none), its batch norm and its activation; or
    any other module alone."""

    # A module, or None; a BatchNorm2d or SyncBatchNorm, or None.
    module: Any
    norm: Any = None
    activation: tuple[float, float] | None = None


def is_fusible(module: Any, kind: type[nn.Conv1d | nn.Conv2d] = nn.Conv2d) -> bool:
    """Whether the operation can run this module, that is, whether it is a plain convolution of this kind."""
    return (
        type(module) is kind
        and module.groups == 1
        and set(module.dilation) == {1}
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and not is_altered(module)
    )


def pool_window(module: Any) -> tuple[int, int] | None:
    """(bins, frames) of a MaxPool2d, (1, frames) of a MaxPool1d that the operation can run after a convolution; None for
    any other module."""
    if type(module) not in (nn.MaxPool1d, nn.MaxPool2d) or is_altered(module):
        return None
    if module.ceil_mode or module.return_indices:
        return None
    axes = 1 if type(module) is nn.MaxPool1d else 2
    window, stride, padding, dilation = (
        (value,) * axes if isinstance(value, int) else tuple(value)
        for value in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    plain = window == stride and set(padding) == {0} and set(dilation) == {1}
    return (1, *window)[-2:] if plain else None


def _is_norm(module: nn.Module) -> bool:
    return type(module) in (nn.BatchNorm2d, MaskedBatchNorm2d, nn.SyncBatchNorm) and not is_altered(module)


def stages_of(stack: nn.Sequential) -> list[Stage]:
    """The modules of a stack in order, grouped into those that run together."""
    modules: list[Any] = list(stack)
    stages: list[Stage] = []
    while modules:
        module = None if _is_norm(modules[0]) else modules.pop(0)
        norm = activation = None
        if module is None or is_fusible(module):
            norm = modules.pop(0) if modules and _is_norm(modules[0]) else None
            if isinstance(norm, MaskedBatchNorm2d):
                activation = norm.activation
            elif modules and clamp_range(modules[0]) is not None and not is_altered(modules[0]):
                activation = clamp_range(modules.pop(0))
        stages.append(Stage(module, norm, activation))
    return stages


def folded(norm: Any) -> tuple[Tensor, Tensor]:
    """The scale and the shift of a batch norm on running statistics."""
    # In float32 at least.
    dtype = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = torch.rsqrt(norm.running_var.to(dtype) + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias
