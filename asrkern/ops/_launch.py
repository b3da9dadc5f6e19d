"""What the launchers of Triton kernels share. Like them, it is imported when the first kernel runs."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
import triton
from torch import Tensor


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor; with ASRKERN_CHECK=1 it is full of NaN, so that a value that nobody wrote is seen."""
    result = torch.empty(shape, device=like.device, dtype=dtype)
    if os.environ.get("ASRKERN_CHECK") == "1" and dtype.is_floating_point:
        result.fill_(float("nan"))
    return result


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Run a kernel. Multiply-adds are fused, as Triton did by default until 3.9."""
    kernel[grid](*args, enable_fp_fusion=True, **constants)


def device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """The device of a tensor as the current one, on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def block(extent: int, choices: tuple[int, ...]) -> int:
    """Of ``choices`` (ascending) the block size that pads ``extent`` least, the largest of equals."""
    if extent <= choices[0]:
        return triton.next_power_of_2(extent)
    return min(reversed(choices), key=lambda size: triton.cdiv(extent, size) * size)
