"""Weights in the order that the kernels read, kept between calls for as long as they are the same weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Values of a weight that are compared at each use.
_SAMPLES = 256


class PackedCache:
    """Packed copies of weights by name.

    A copy is used while the weight is at the same address with the same version, which optimisers, load_state_dict and
    in-place operations change, and while a sample of its values is the same, since writing through ``.data`` changes
    neither. Copying or pickling the cache leaves it empty.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tuple, Tensor, Tensor]] = {}

    def __reduce__(self) -> tuple:
        return PackedCache, ()

    def get(self, name: str, weight: Tensor, pack: Callable[[Tensor], Tensor]) -> Tensor:
        """``pack(weight)``, or what it returned before."""
        if weight.is_inference():  # has no version to recognise a change by
            return pack(weight)
        key = (weight.data_ptr(), weight._version, tuple(weight.shape), weight.dtype)
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.shape[0] // _SAMPLES)]
        entry = self._entries.get(name)
        if entry is not None and entry[0] == key and torch.equal(entry[1], sample):
            return entry[2]
        packed = pack(weight)
        self._entries[name] = (key, sample.clone(), packed)
        return packed

    def clear(self) -> None:
        """Forget everything."""
        self._entries = {}


def can_pack(*tensors: Tensor) -> bool:
    """Whether these can be read now, and again later: plain CPU tensors in float32, outside of training and tracing."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and all(
            type(t) in (Tensor, torch.nn.Parameter) and t.device.type == "cpu" and t.dtype == torch.float32
            for t in tensors
        )
    )
