"""Self-attention of equal rows by torch's scaled_dot_product_attention and by asrkern."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from asrkern import ops
from benchmarks.ops.case import Case
from benchmarks.shapes import AttentionShape


class Attention(Case):
    """Inference only, from queries, keys and values as one projection leaves them."""

    def __init__(self, shape: AttentionShape) -> None:
        torch.manual_seed(0)
        self.inputs = []
        self._shape = shape
        self._joint = torch.randn(shape.batch, shape.frames, 3 * shape.heads * shape.width)
        self._lengths = torch.full((shape.batch,), shape.frames)

    def stock(self, *, training: bool) -> Tensor:
        heads = (self._shape.heads, self._shape.width)
        q, k, v = (x.unflatten(-1, heads).transpose(1, 2) for x in self._joint.chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def asrkern(self, *, training: bool) -> Tensor:
        q, k, v = self._joint.flatten(0, 1).chunk(3, -1)
        y = ops.attention(q, k, v, self._lengths, self._lengths, heads=self._shape.heads)
        return y.unflatten(0, self._joint.shape[:2])

    def output_gradient(self) -> Tensor:
        raise NotImplementedError
