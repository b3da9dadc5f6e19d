"""What the validation of every operation shares."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor

from asrkern._lengths import Lengths, as_lengths


def check_tensor(name: str, value: object, dims: tuple[int, ...] | None = None) -> None:
    """Raise TypeError or ValueError unless ``value`` is a floating-point tensor of one of the given ranks."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a Tensor, received {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, received {value.dtype}")
    if dims is not None and value.dim() not in dims:
        expected = " or ".join(map(str, dims))
        raise ValueError(f"{name}: expected {expected} dimensions, received shape {tuple(value.shape)}")


def check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``value`` is a floating-point tensor of exactly this shape."""
    check_tensor(name, value)
    if value.dim() != len(shape) or any(a != b for a, b in zip(value.shape, shape)):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, received {tuple(value.shape)}")


def check_same_device(name: str, value: Tensor, input: Tensor) -> None:
    """Raise ValueError unless ``value`` is on the device of ``input``."""
    if value.device != input.device:
        raise ValueError(f"{name}: expected device {input.device}, that of input, received {value.device}")


@overload
def lengths_on(device: torch.device, name: str, lengths: Lengths, rows: int) -> Tensor: ...


@overload
def lengths_on(device: torch.device, name: str, lengths: Lengths | None, rows: int) -> Tensor | None: ...


def lengths_on(device: torch.device, name: str, lengths: Lengths | None, rows: int) -> Tensor | None:
    """``lengths`` as int64 on ``device``; raises unless it holds one integer a row. Values are checked in C++."""
    lengths = as_lengths(name, lengths, rows)
    return None if lengths is None else lengths.to(device, torch.int64)


def compute_dtype(input: Tensor, **others: Tensor | None) -> torch.dtype:
    """The dtype that the kernels compute in: float64 for float64 tensors, else float32.

    Raises:
        TypeError: float64 meets another dtype, as in torch.
    """
    for name, other in others.items():
        if other is not None and (other.dtype == torch.float64) != (input.dtype == torch.float64):
            raise TypeError(f"{name}: expected the dtype of input, {input.dtype}, received {other.dtype}")
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def output_dtype(input: Tensor, weight: Tensor | None) -> torch.dtype:
    """The dtype of results: that of the caller's tensors, float32 where they differ (as under autocast)."""
    return input.dtype if weight is None else torch.promote_types(input.dtype, weight.dtype)


@overload
def cast(value: Tensor, dtype: torch.dtype) -> Tensor: ...


@overload
def cast(value: Tensor | None, dtype: torch.dtype) -> Tensor | None: ...


def cast(value: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """``value`` in ``dtype``, None for None."""
    return None if value is None else value.to(dtype)


def clamp_bounds(activation: tuple[float, float] | None) -> tuple[float, float]:
    """The (min, max) that an activation clamps to; None is no activation.

    Raises:
        ValueError: not two numbers with min below max.
    """
    bounds = (-math.inf, math.inf) if activation is None else tuple(activation)
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise ValueError(f"activation: expected (min, max) with min < max, received {activation!r}")
    return float(bounds[0]), float(bounds[1])


def register_fake(op: str) -> Callable[[Callable], Callable]:
    """Register a fake kernel whose results are made like its first argument, by :func:`torch.library.register_fake`.

    torch also calls it in a real call with one tensor on the meta device. Then it raises ValueError, instead of
    returning results that nobody computed.
    """

    def decorate(fake: Callable) -> Callable:
        @functools.wraps(fake)
        def checked(*args):
            # A tracer's tensors have classes of their own.
            kinds = {arg.is_meta for arg in args if type(arg) in (Tensor, torch.nn.Parameter)}
            if len(kinds) > 1:
                raise ValueError(f"{op}: expected all tensors on the meta device or none, received both")
            return fake(*args)

        torch.library.register_fake(op, checked)
        return fake

    return decorate


def takes_int8(activations: str) -> bool:
    """Whether activations are rounded to eight bits; ValueError for what is neither "float32" nor "int8"."""
    if activations not in ("float32", "int8"):
        raise ValueError(f'activations: expected "float32" or "int8", received {activations!r}')
    return activations == "int8"


def check_int8_weight(name: str, weight: Tensor, int8_activations: bool) -> None:
    """Activations of eight bits meet weights of eight bits."""
    if int8_activations and weight.dtype != torch.int8:
        raise ValueError(f'{name}: expected int8 with activations="int8", received {weight.dtype}')
