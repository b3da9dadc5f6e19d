"""Integers, lengths above all, as people pass them: tensors, numpy arrays or lists."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from asrkern._transforms import transforming

Lengths = Tensor | np.ndarray | Sequence[int]


def as_integers(name: str, values: object, shape: Sequence[int | str] | None = None) -> Tensor:
    """values as a tensor: itself if it is one, else int64 on the CPU.

    Args:
        name: of the argument, for messages.
        values: a tensor or an array of integers, or a list or tuple of them.
        shape: that it has to have; a letter stands for any extent, None for any shape.

    Raises:
        TypeError: values is none of these, or not of integers.
        ValueError: another shape.
    """
    if isinstance(values, Tensor):
        tensor = values
    elif isinstance(values, np.ndarray):
        if values.size and values.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected an integer dtype, received {values.dtype}")
        # Copied: torch knows no negative strides, no other byte order, and no writing to what is read only.
        tensor = torch.from_numpy(values.astype(np.int64))
    elif isinstance(values, list | tuple):
        try:
            tensor = torch.tensor(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name}: expected integers, received {reprlib.repr(values)}") from error
        tensor = tensor if tensor.numel() else tensor.to(torch.int64)
    else:
        raise TypeError(
            f"{name}: expected a tensor, an array or a list of integers, received {type(values).__name__}"
        )
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name}: expected an integer dtype, received {tensor.dtype}")
    if shape is not None and (
        tensor.dim() != len(shape)
        or any(not isinstance(size, str) and size != n for size, n in zip(shape, tensor.shape))
    ):
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name}: expected shape [{expected}], received {list(tensor.shape)}")
    return tensor


@overload
def as_lengths(
    name: str, lengths: Lengths, rows: int, steps: int | None = None, least: int = 0
) -> Tensor: ...


@overload
def as_lengths(
    name: str, lengths: Lengths | None, rows: int, steps: int | None = None, least: int = 0
) -> Tensor | None: ...


def as_lengths(
    name: str, lengths: Lengths | None, rows: int, steps: int | None = None, least: int = 0
) -> Tensor | None:
    """lengths as a tensor [rows], None for None; with steps, known values are to be from ``least`` to it.

    Raises:
        TypeError, ValueError: as :func:`as_integers`, or a value is out of range.
    """
    if lengths is None:
        return None
    tensor = as_integers(name, lengths, (rows,))
    if steps is not None:
        check_range(name, tensor, least, steps, "T")
    return tensor


def check_range(name: str, values: Tensor, low: int, high: int, meaning: str) -> None:
    """Raise ValueError unless all values that are known are from low to high, of which meaning says what it is."""
    if values.numel() == 0 or not values_are_known(values):
        return
    least, most = int(values.min()), int(values.max())
    if least < low or most > high:
        raise ValueError(f"{name}: expected {low} to {high} ({meaning}), received {least} to {most}")


def values_are_known(x: Tensor) -> bool:
    """Whether values may be looked at: a GPU would have to be waited for; a trace, vmap or a fake tensor has none."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing() or transforming()
    return x.device.type == "cpu" and not tracing and not is_fake(x)
