"""Weights in the kernels' order, kept between calls until the weights change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asrkern._transforms import transforming


class PackedCache:
    """Packed copies of weights, by name.

    A copy is used while the weight has the same shape, dtype and values. A checksum of all values tells: a weight can
    be written through ``.data``, numpy or another tensor of the same memory, and torch does not count such writes.
    Copying or pickling the cache leaves it empty.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tuple, Any]] = {}

    def __reduce__(self) -> tuple:
        return PackedCache, ()

    def get(
        self, name: str, weights: Tensor | tuple[Tensor, ...], pack: Callable[..., Any], *settings: Any
    ) -> Any:
        """The kept result of ``pack(*weights)``, or a new one.

        settings: what the result depends on beside the weights. In a trace or a transform of torch.func it is always a
        new one.
        """
        weights = (weights,) if isinstance(weights, Tensor) else weights
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or transforming():
            return pack(*weights)
        key = (*((torch.ops.asrkern.checksum(w), w.shape, w.dtype) for w in weights), *settings)
        entry = self._entries.get(name)
        if entry is None or entry[0] != key:
            entry = self._entries[name] = (key, pack(*weights))
        return entry[1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries = {}


def can_pack(*tensors: Tensor) -> bool:
    """Whether these tensors can be read now and later: plain, float32, on the CPU, outside of training and tracing."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not transforming()
        and all(
            type(t) in (Tensor, torch.nn.Parameter) and t.device.type == "cpu" and t.dtype == torch.float32
            for t in tensors
        )
    )
