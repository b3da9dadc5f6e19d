"""Weights in the order that the kernels read, kept between calls for as long as they are the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asrkern._transforms import transforming


class PackedCache:
    """Packed copies of weights by name.

    A copy is used while the weight has the same shape, dtype and values, as a checksum of all of them says: a weight can
    be written through ``.data``, numpy or another tensor of the same memory, of which torch keeps no count. Copying or
    pickling the cache leaves it empty.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tuple, Any]] = {}

    def __reduce__(self) -> tuple:
        return PackedCache, ()

    def get(self, name: str, weights: Tensor | tuple[Tensor, ...], pack: Callable[..., Any]) -> Any:
        """``pack(*weights)``, or what it returned before. Within a trace or a transform of
        torch.func always the former."""
        weights = (weights,) if isinstance(weights, Tensor) else weights
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or transforming():
            return pack(*weights)
        key = tuple((torch.ops.asrkern.checksum(w), w.shape, w.dtype) for w in weights)
        entry = self._entries.get(name)
        if entry is None or entry[0] != key:
            entry = self._entries[name] = (key, pack(*weights))
        return entry[1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries = {}


def can_pack(*tensors: Tensor) -> bool:
    """Whether these can be read now, and again later: plain CPU tensors in float32, outside of training and tracing."""
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
