"""Transformer layers whose weights are of fewer bits."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from asrkern._lengths import Lengths
from asrkern.nn._hooks import is_altered
from asrkern.nn._transformer import Attention, Projection
from asrkern.nn.quantize import QuantizedLinear, _EvalOnly, _repr_of
from asrkern.nn.transformer import TransformerLayer, _lengths_of
from asrkern.ops._common import check_shape, check_tensor


class _QuantizedAttention(_EvalOnly):
    """torch.nn.MultiheadAttention's weights, for the layer that holds it."""

    def __init__(self, attention: nn.MultiheadAttention, weights: str, activations: str) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = attention.embed_dim, attention.num_heads
        self.batch_first = attention.batch_first
        in_proj = nn.Linear(self.embed_dim, 3 * self.embed_dim, device="meta")
        in_proj.weight, in_proj.bias = attention.in_proj_weight, attention.in_proj_bias
        self.in_proj = QuantizedLinear(in_proj, weights, activations)
        self.out_proj = QuantizedLinear(attention.out_proj, weights, activations)


class _QuantizedLayer(TransformerLayer, _EvalOnly):
    def __init__(self, layer: Any, weights: str, activations: str = "float32") -> None:
        super().__init__()
        self.norm_first, self.format, self.activations = layer.norm_first, weights, activations
        for name, part in layer.named_children():
            if isinstance(part, nn.MultiheadAttention):
                part = _QuantizedAttention(part, weights, activations)
            elif isinstance(part, nn.Linear):
                part = QuantizedLinear(part, weights, activations)
            elif isinstance(part, nn.LayerNorm):
                part = copy.deepcopy(part)
            else:
                continue
            setattr(self, name, part)
        self.train(layer.training)

    def extra_repr(self) -> str:
        return f"norm_first={self.norm_first}, weights={self.format}" + _repr_of(self.activations)

    def _check_use(self) -> None:
        self._require_eval()
        # The weights of these are read; only norms are called.
        for name, part in self.named_modules():
            if isinstance(part, QuantizedLinear | _QuantizedAttention) and is_altered(part):
                raise RuntimeError(
                    f"{name}: expected a part without hooks and without a forward of its own, since "
                    f"{type(self).__name__} does not call it, received one with them; put them on the layer"
                )

    def _attention(self, name: str) -> Attention:
        attention = getattr(self, name)
        return Attention(
            Projection.of(attention.in_proj), Projection.of(attention.out_proj), attention.num_heads
        )

    def _prepare(self, name: str, x: Tensor) -> Tensor:
        """x as a padded batch in the dtype of the norms."""
        check_tensor(name, x, (2, 3))
        check_shape(name, x, (*x.shape[:-1], self.self_attn.embed_dim))
        x = x if x.dim() == 3 else x.unsqueeze(0 if self.self_attn.batch_first else 1)
        dtype = x.dtype if self.norm1.weight is None else self.norm1.weight.dtype
        return x.to(dtype)

    def _finish(self, y: Tensor, like: Tensor) -> Tensor:
        y = y if like.dim() == 3 else y.squeeze(0 if self.self_attn.batch_first else 1)
        return y.to(like.dtype)

    def _rows_and_steps(self, x: Tensor) -> tuple[int, int]:
        rows, steps = self._by_rows(x).shape[:2]
        return rows, steps

    def _check_masks(
        self, names: str, x: Tensor, keys: Tensor, mask: Any, padding: Any, is_causal: bool
    ) -> Tensor | None:
        """The padding mask, of a batch. ``names``: what the masks' names begin with."""
        (rows, queries), (_, steps) = self._rows_and_steps(x), self._rows_and_steps(keys)
        padding = padding[None] if isinstance(padding, Tensor) and padding.dim() == 1 else padding
        shapes: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
            f"{names}_mask": (mask, [(queries, steps), (rows * self.self_attn.num_heads, queries, steps)]),
            f"{names}_key_padding_mask": (padding, [(rows, steps)]),
        }
        for name, (value, expected) in shapes.items():
            if value is None:
                continue
            if not isinstance(value, Tensor) or not (value.dtype == torch.bool or value.is_floating_point()):
                received = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"{name}: expected a bool or floating-point tensor, received {received}")
            if tuple(value.shape) not in expected:
                wanted = " or ".join(map(str, expected))
                raise ValueError(f"{name}: expected shape {wanted}, received {tuple(value.shape)}")
        if is_causal and mask is None:
            raise ValueError(f"{names}_mask: expected the causal mask with is_causal, received None")
        return padding


class QuantizedTransformerEncoderLayer(_QuantizedLayer):
    """torch.nn.TransformerEncoderLayer with int8 or bfloat16 weights, made from ``layer``. Called as
    :class:`asrkern.nn.TransformerEncoderLayer`; weights and activations: see :func:`asrkern.nn.quantize`.

    Buffers: of self_attn.in_proj, self_attn.out_proj, linear1 and linear2 what a QuantizedLinear has; norm1, norm2.
    """

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        lengths: Lengths | None = None,
    ) -> Tensor:
        """src, src_mask, src_key_padding_mask, is_causal and lengths as of :class:`asrkern.nn.TransformerEncoderLayer`.

        Raises:
            RuntimeError: in train mode, or a linear part has a hook or a forward of its own.
            TypeError: a mask is neither bool nor floating-point, or lengths are no integers.
            ValueError: something does not fit src, or is_causal without src_mask.
        """
        self._check_use()
        x = self._prepare("src", src)
        lengths = _lengths_of("lengths", lengths, src, self.self_attn.batch_first)
        padding = self._check_masks("src", x, x, src_mask, src_key_padding_mask, is_causal)
        return self._finish(self._encode_padded(x, src_mask, padding, is_causal, lengths), src)


class QuantizedTransformerDecoderLayer(_QuantizedLayer):
    """torch.nn.TransformerDecoderLayer with int8 or bfloat16 weights, made from ``layer``. Called as
    :class:`asrkern.nn.TransformerDecoderLayer`; weights and activations: see :func:`asrkern.nn.quantize`.

    Buffers: of self_attn and multihead_attn the in_proj and out_proj, linear1 and linear2 what a QuantizedLinear has;
    norm1, norm2, norm3.
    """

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        lengths: Lengths | None = None,
        memory_lengths: Lengths | None = None,
    ) -> Tensor:
        """tgt and memory with tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, tgt_is_causal,
        memory_is_causal, lengths and memory_lengths as of :class:`asrkern.nn.TransformerDecoderLayer`.

        Raises:
            RuntimeError: in train mode, or a linear part has a hook or a forward of its own.
            TypeError: a mask is neither bool nor floating-point, or lengths are no integers.
            ValueError: something does not fit tgt or memory, or is_causal without a mask.
        """
        self._check_use()
        x, m = self._prepare("tgt", tgt), self._prepare("memory", memory)
        if tgt.dim() != memory.dim() or self._rows_and_steps(x)[0] != self._rows_and_steps(m)[0]:
            raise ValueError(
                f"memory: expected the rows of tgt, {tuple(tgt.shape)}, received shape {tuple(memory.shape)}"
            )
        batch_first = self.self_attn.batch_first
        lengths = _lengths_of("lengths", lengths, tgt, batch_first)
        memory_lengths = _lengths_of("memory_lengths", memory_lengths, memory, batch_first)
        paddings = (
            self._check_masks("tgt", x, x, tgt_mask, tgt_key_padding_mask, tgt_is_causal),
            self._check_masks("memory", x, m, memory_mask, memory_key_padding_mask, memory_is_causal),
        )
        masks, are_causal = (tgt_mask, memory_mask), (tgt_is_causal, memory_is_causal)
        y = self._decode_padded(x, m, masks, paddings, are_causal, (lengths, memory_lengths))
        return self._finish(y, tgt)


KINDS = {
    nn.TransformerEncoderLayer: QuantizedTransformerEncoderLayer,
    nn.TransformerDecoderLayer: QuantizedTransformerDecoderLayer,
}
