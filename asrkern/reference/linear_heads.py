"""A fully connected layer of each head."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_heads(
    input: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    heads: int,
    transposed: bool = False,
) -> Tensor:
    """Reference of :func:`asrkern.ops.linear_heads`; same arguments."""
    pairs = zip(input.tensor_split(heads, 1), weight.to(input.dtype).tensor_split(heads))
    output = torch.cat([x @ (w if transposed else w.t()) for x, w in pairs], 1)
    output = output if scale is None else output * scale
    return output if bias is None else output + bias
