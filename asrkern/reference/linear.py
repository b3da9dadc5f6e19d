"""``y = x Wᵀ + b``."""

from __future__ import annotations

from torch import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Reference of :func:`asrkern.ops.linear`; same arguments."""
    output = input @ weight.t()
    return output if bias is None else output + bias
