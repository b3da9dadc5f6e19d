"""Outputs of a network as every decoder takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def as_scores(log_probs: Tensor | np.ndarray) -> Tensor:
    """A tensor of what may be an array of any strides and byte order.

    Raises:
        TypeError: it is neither, or not floating-point.
    """
    if isinstance(log_probs, np.ndarray):
        if log_probs.dtype.kind != "f":
            raise TypeError(f"log_probs: expected a floating-point dtype, received {log_probs.dtype}")
        # torch knows no negative strides, no other byte order, and no more bits than float64 has.
        dtype = np.float64 if log_probs.itemsize > 8 else log_probs.dtype.newbyteorder("=")
        array = np.ascontiguousarray(log_probs, dtype)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    if not isinstance(log_probs, Tensor):
        raise TypeError(f"log_probs: expected a tensor or an array, received {type(log_probs).__name__}")
    if not log_probs.is_floating_point():
        raise TypeError(f"log_probs: expected a floating-point dtype, received {log_probs.dtype}")
    return log_probs.detach()
