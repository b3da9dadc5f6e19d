"""What the Transformer's layers compute in inference, over batches without padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrkern import ops
from asrkern._lengths import values_are_known


# No NamedTuple: TorchDynamo 2.10 does not call those.
@dataclass
class Projection:
    """A linear layer: weight [out_features, in_features] in float32, int8 or bfloat16, scale and bias or None.

    activations: as of :func:`asrkern.ops.linear_quantized`.
    """

    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None
    activations: str = "float32"

    @classmethod
    def of(cls, linear: Any) -> Projection:
        """That of a torch.nn.Linear or QuantizedLinear."""
        activations = getattr(linear, "activations", "float32")
        return cls(linear.weight, getattr(linear, "scale", None), linear.bias, activations)

    def __call__(self, x: Tensor) -> Tensor:
        if self.weight.dtype == torch.float32:
            return ops.linear(x, self.weight, self.bias)
        return ops.linear_quantized(x, self.weight, self.scale, self.bias, self.activations)

    def outputs(self, first: int, last: int) -> Projection:
        """The outputs from first to last."""
        tensors = (self.weight, self.scale, self.bias)
        weight, scale, bias = (None if t is None else t[first:last] for t in tensors)
        assert weight is not None
        return Projection(weight, scale, bias, self.activations)


class Attention(NamedTuple):
    """Multi-head attention: queries, keys and values of one projection, and the output's."""

    in_proj: Projection
    out_proj: Projection
    heads: int


class Seen(NamedTuple):
    """Which keys are attended to.

    lengths: [N] of each row; bias: as of :func:`asrkern.ops.attention`; causal: up to the query's own index.
    """

    lengths: Tensor
    bias: Tensor | None = None
    causal: bool = False


class Batch(NamedTuple):
    """Vectors of the rows, one after another, without padding.

    x: [ΣL, d]; lengths: [N]; index: where each vector was among those of the padded batch, None for all in order.
    """

    x: Tensor
    lengths: Tensor
    index: Tensor | None  # type: ignore[assignment]  # hides tuple.index


def pack(x: Tensor, lengths: Tensor | None) -> Batch:
    """x [N, T, d] without what lies beyond lengths [N]; None for nothing."""
    rows, steps, size = x.shape
    if lengths is None:
        return Batch(x.reshape(-1, size), torch.full((rows,), steps, device=x.device), None)
    valid = torch.arange(steps) < lengths[:, None]
    index: Tensor | None = valid.flatten().nonzero().squeeze(1)
    if index is not None and len(index) == rows * steps:
        index = None
    x = x.reshape(-1, size)
    return Batch(x if index is None else x.index_select(0, index), lengths, index)


def unpack(y: Tensor, batch: Batch, rows: int, steps: int) -> Tensor:
    """[N, T, d], zero where pack left vectors out."""
    if batch.index is not None:
        y = y.new_zeros(rows * steps, y.shape[1]).index_copy_(0, batch.index, y)
    return y.view(rows, steps, y.shape[1])


def unpadded(mask: Tensor) -> Tensor | None:
    """The numbers of keys [N] where a padding mask [N, S], bool or to be added, hides just those that follow; or None."""
    if not values_are_known(mask):
        return None
    seen = ~mask if mask.dtype == torch.bool else mask == 0
    counts = seen.sum(1)
    if not torch.equal(seen, torch.arange(mask.shape[1]) < counts[:, None]):
        return None
    hidden = mask if mask.dtype == torch.bool else mask == -torch.inf
    return counts if torch.equal(seen, ~hidden) else None


def added(mask: Tensor | None, padding: Tensor | None, rows: int, dtype: torch.dtype) -> Tensor | None:
    """Masks [L, S] or [N · heads, L, S], and of padding [N, S], as one that is added to scores by row and head."""

    def floats(mask: Tensor) -> Tensor:
        if mask.dtype != torch.bool:
            return mask.to(dtype)
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -torch.inf)

    bias = None
    if mask is not None:
        bias = floats(mask)[None, None] if mask.dim() == 2 else floats(mask).unflatten(0, (rows, -1))
    if padding is not None:
        padding = floats(padding)[:, None, None]
        bias = padding if bias is None else bias + padding
    return bias


def self_attention(layer: Attention, x: Tensor, seen: Seen) -> Tensor:
    """x: [ΣT, d] → [ΣT, d]."""
    size = x.shape[1]
    if seen.bias is None and values_are_known(seen.lengths) and bool((seen.lengths <= 1).all()):
        # The weight of an only key is 1.
        return layer.out_proj(layer.in_proj.outputs(2 * size, 3 * size)(x))
    q, k, v = layer.in_proj(x).split(size, 1)
    lengths = seen.lengths
    return layer.out_proj(
        ops.attention(q, k, v, lengths, lengths, seen.bias, heads=layer.heads, causal=seen.causal)
    )


def cross_attention(layer: Attention, x: Tensor, lengths: Tensor, memory: Tensor, seen: Seen) -> Tensor:
    """x: [ΣL, d], of which each row has so many of lengths [N], and memory: [ΣS, d] → [ΣL, d].

    Rows of few queries multiply these, and not all of the memory, by the weights of keys and values. Which rows do is
    for their own lengths to say, so that their bits are their own.
    """
    queries = layer.in_proj.outputs(0, x.shape[1])(x)
    if seen.bias is None and not seen.causal and values_are_known(lengths) and values_are_known(seen.lengths):
        few = (lengths * layer.heads <= x.shape[1]) & (seen.lengths > 0)
        ways = [(_by_memory, few), (_by_keys, ~few)]
    else:
        ways = [(_by_keys, torch.ones_like(lengths, dtype=torch.bool))]
    ways = [(way, rows) for way, rows in ways if len(ways) == 1 or rows.any()]
    if len(ways) == 1:
        y = ways[0][0](layer, queries, lengths, memory, seen)
    else:
        y = torch.empty_like(queries)
        for way, rows in ways:
            of_queries, of_memory = rows.repeat_interleave(lengths), rows.repeat_interleave(seen.lengths)
            part = seen._replace(lengths=seen.lengths[rows])
            y[of_queries] = way(layer, queries[of_queries], lengths[rows], memory[of_memory], part)
    return layer.out_proj(y)


def _by_keys(layer: Attention, queries: Tensor, lengths: Tensor, memory: Tensor, seen: Seen) -> Tensor:
    size = queries.shape[1]
    k, v = layer.in_proj.outputs(size, 3 * size)(memory).split(size, 1)
    return ops.attention(
        queries, k, v, lengths, seen.lengths, seen.bias, heads=layer.heads, causal=seen.causal
    )


def _by_memory(layer: Attention, queries: Tensor, lengths: Tensor, memory: Tensor, seen: Seen) -> Tensor:
    """Scores q·(W_k m + b_k) are (W_kᵀ q)·m but for what is the same for all keys, and Σ p (W_v m + b_v) is
    W_v (Σ p m) + b_v."""
    heads, size = layer.heads, queries.shape[1]
    keys, values = (layer.in_proj.outputs(i * size, (i + 1) * size) for i in (1, 2))
    if keys.scale is not None:
        queries = queries * keys.scale
    queries = ops.linear_heads(queries, keys.weight, heads=heads, transposed=True)
    scale = (size // heads) ** -0.5
    y = ops.attention(queries, memory, memory, lengths, seen.lengths, heads=heads, key_heads=1, scale=scale)
    return ops.linear_heads(y, values.weight, values.scale, values.bias, heads=heads)


def residual(
    x: Tensor, norm: Callable[[Tensor], Tensor], block: Callable[[Tensor], Tensor], norm_first: bool
) -> Tensor:
    """A block of a layer with its norm."""
    return x + block(norm(x)) if norm_first else norm(x + block(x))


def feed_forward(first: Projection, second: Projection, x: Tensor) -> Tensor:
    """x: [ΣT, d] → [ΣT, d], with ReLU between."""
    return second(first(x).relu_())
