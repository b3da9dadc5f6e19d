"""Outputs of a network, and its blank, as every decoder takes them."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from torch import Tensor


def as_scores(log_probs: Tensor | np.ndarray, name: str = "log_probs") -> Tensor:
    """A tensor from a tensor, or from an array of any strides and byte order.

    Raises:
        TypeError: it is neither a tensor nor an array, or not floating-point.
    """
    if isinstance(log_probs, np.ndarray):
        if log_probs.dtype.kind != "f":
            raise TypeError(f"{name}: expected a floating-point dtype, received {log_probs.dtype}")
        # torch has no negative strides, no other byte order, and no floating-point type longer than float64.
        dtype = np.float64 if log_probs.itemsize > 8 else log_probs.dtype.newbyteorder("=")
        array = np.ascontiguousarray(log_probs, dtype)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    if not isinstance(log_probs, Tensor):
        raise TypeError(f"{name}: expected a tensor or an array, received {type(log_probs).__name__}")
    if not log_probs.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, received {log_probs.dtype}")
    return log_probs.detach()


def as_blank(blank: int, labels: int = 1 << 31) -> int:
    """The index of the blank, checked against the number of labels; without that the outputs decide later.

    Raises:
        TypeError: it is no integer.
        ValueError: it is out of range.
    """
    if isinstance(blank, bool) or not isinstance(blank, Integral):
        raise TypeError(f"blank: expected the index of a label, received {blank!r}")
    if not 0 <= blank < labels:
        raise ValueError(f"blank: expected the index of a label, 0 to {labels - 1}, received {blank}")
    return int(blank)
