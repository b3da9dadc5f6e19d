"""Attention by heads over a ragged batch."""

from __future__ import annotations

import torch
from torch import Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Tensor,
    key_lengths: Tensor,
    bias: Tensor | None = None,
    *,
    heads: int,
    key_heads: int | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Reference of :func:`asrkern.ops.attention`; same arguments."""
    key_heads = heads if key_heads is None else key_heads
    scale = (query.shape[1] // heads) ** -0.5 if scale is None else scale
    outputs = []
    rows = (
        x.split(n.tolist()) for x, n in ((query, query_lengths), (key, key_lengths), (value, key_lengths))
    )
    for row, (q, k, v) in enumerate(zip(*rows)):
        q, k, v = (
            x.unflatten(1, (n, x.shape[1] // n)).transpose(0, 1)
            for x, n in ((q, heads), (k, key_heads), (v, key_heads))
        )
        k, v = (x.repeat_interleave(heads // key_heads, 0) for x in (k, v))
        scores = scale * (q @ k.transpose(1, 2))
        if bias is not None:
            scores = scores + bias[row if len(bias) > 1 else 0][:, : q.shape[1], : k.shape[1]]
        if causal:
            later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        # A query that sees no key gets zeros.
        weights = scores.softmax(-1).masked_fill((scores == -torch.inf).all(-1, keepdim=True), 0)
        outputs.append((weights @ v).transpose(0, 1).flatten(1))
    return torch.cat(outputs)
