"""Attention by heads over a ragged batch, for inference."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern import _library  # noqa: F401  (the operation has to exist)
from asrkern._lengths import Lengths, as_integers
from asrkern.ops._autograd import call, detached, not_differentiable
from asrkern.ops._common import check_same_device, check_tensor, compute_dtype, register_fake


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Lengths,
    key_lengths: Lengths,
    bias: Tensor | None = None,
    *,
    heads: int,
    key_heads: int | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """``softmax(scale · Q Kᵀ + bias) V`` of each row and head, for inference on the CPU: backward raises.

    The rows of a batch stand one after another, without padding. A row's result is bit for bit independent of the
    others. A query that sees no key (a row without keys, a bias of −∞ everywhere) gets zeros.

    Args:
        query: [ΣL, heads · width], float32 or float64; lower precisions are computed in float32.
        key: [ΣS, key_heads · width].
        value: [ΣS, key_heads · value_width].
        query_lengths: integers [N], queries of each row.
        key_lengths: integers [N], keys of each row.
        bias: [N or 1, heads or 1, L or 1, S] with at least the most queries and keys of a row, or None. Its corner is
            read; −∞ masks.
        heads: of the queries.
        key_heads: of keys and values, a divisor of heads: neighbours of the query's heads share one. None: heads.
        causal: whether query i of a row sees keys 0 to i only.
        scale: None: width ** −0.5.

    Returns:
        [ΣL, heads · value_width] in the dtype of query.

    Raises:
        TypeError: not floating-point tensors, float64 with another dtype, or lengths that are not integers.
        ValueError: shapes, devices, lengths or heads that do not fit.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        check_tensor(name, tensor, (2,))
        check_same_device(name, tensor, query)
    if bias is not None:
        check_tensor("bias", bias, (4,))
        check_same_device("bias", bias, query)
    dtype = compute_dtype(query, key=key, value=value, bias=bias)
    if query.device.type not in ("cpu", "meta"):
        raise ValueError(f"query: expected a tensor on the CPU, received one on {query.device}")
    key_heads = heads if key_heads is None else key_heads
    if heads < 1 or key_heads < 1 or heads % key_heads or query.shape[1] % heads:
        raise ValueError(
            f"heads, key_heads: expected a divisor of the {query.shape[1]} features of query and a divisor of that, "
            f"received {heads} and {key_heads}"
        )
    query_lengths = as_integers("query_lengths", query_lengths, ("N",))
    key_lengths = as_integers("key_lengths", key_lengths, ("N",))
    tensors = [detached(t).to(dtype) for t in (query, key, value)]
    lengths = [t.to(query.device, torch.int64) for t in (query_lengths, key_lengths)]
    output = call(
        "attention",
        *tensors,
        *lengths,
        None if bias is None else detached(bias).to(dtype),
        *(heads, key_heads, causal, (query.shape[1] // heads) ** -0.5 if scale is None else float(scale)),
    )
    return output.to(query.dtype)


@register_fake("asrkern::attention")
def _fake(query, key, value, query_lengths, key_lengths, bias, heads, key_heads, causal, scale):
    return query.new_empty(query.shape[0], value.shape[1] // key_heads * heads)


not_differentiable("attention")
