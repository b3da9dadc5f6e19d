"""torch.nn.TransformerEncoderLayer and TransformerDecoderLayer, faster in inference on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrkern._lengths import Lengths, as_lengths, values_are_known
from asrkern.nn import _transformer
from asrkern.nn._hooks import is_altered
from asrkern.nn._lengths import frame_mask, zero_padding
from asrkern.nn._packed import can_pack
from asrkern.nn._transformer import Attention, Batch, Projection, Seen


def is_relu(activation: Any) -> bool:
    """Whether the activation of a layer is ReLU, as a function or as a module."""
    return activation in (F.relu, torch.relu) or type(activation) is nn.ReLU


def is_plain(layer: Any) -> bool:
    """Whether a layer of torch's or ours is what its constructor made: parts of the usual kinds, without hooks; with
    ReLU, which alone the kernels have."""
    parts = dict(layer.named_children())
    attentions = [parts.get("self_attn"), *([parts["multihead_attn"]] if "multihead_attn" in parts else [])]
    return (
        is_relu(layer.activation)
        and all(
            type(a) is nn.MultiheadAttention
            and a._qkv_same_embed_dim
            and a.bias_k is None
            and not a.add_zero_attn
            and type(a.out_proj) is nn.modules.linear.NonDynamicallyQuantizableLinear
            for a in attentions
        )
        and all(type(parts.get(name)) is nn.Linear for name in ("linear1", "linear2"))
        and not any(is_altered(m) for m in layer.modules() if m is not layer)
    )


if TYPE_CHECKING:
    # What stands behind it among the bases.
    _Layer = nn.Module
else:
    _Layer = object


class TransformerLayer(_Layer):
    """What the layers share, quantised ones, too. Goes in front of torch's layer among the bases."""

    norm_first: bool
    linear1: Any
    linear2: Any
    norm1: Any
    norm2: Any
    norm3: Any
    self_attn: Any

    def _attention(self, name: str) -> Attention:
        attention = getattr(self, name)
        in_proj = Projection(attention.in_proj_weight, None, attention.in_proj_bias)
        return Attention(in_proj, Projection.of(attention.out_proj), attention.num_heads)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return _transformer.feed_forward(Projection.of(self.linear1), Projection.of(self.linear2), x)

    def _takes(self, *inputs: Tensor) -> bool:
        """Whether these are computed by asrkern's operations; else by torch's own forward."""
        stock = next(base for base in type(self).__mro__ if base.__module__.startswith("torch.nn."))
        blocks = ("_sa_block", "_mha_block", "_ff_block")
        return (
            can_pack(*(x for x in inputs if not x.is_nested), *self.parameters())
            and not any(m.training for m in self.modules())
            and not torch.is_autocast_enabled("cpu")
            and all(getattr(type(self), b, None) is getattr(stock, b, None) for b in blocks)
            and is_plain(self)
        )

    def _encode(self, x: Tensor, seen: Seen) -> Tensor:
        attention = self._attention("self_attn")

        def attend(x: Tensor) -> Tensor:
            return _transformer.self_attention(attention, x, seen)

        x = _transformer.residual(x, self.norm1, attend, self.norm_first)
        return _transformer.residual(x, self.norm2, self._feed_forward, self.norm_first)

    def _decode(self, x: Tensor, seen: Seen, memory: Tensor, memory_seen: Seen) -> Tensor:
        attention, cross = self._attention("self_attn"), self._attention("multihead_attn")

        def attend(x: Tensor) -> Tensor:
            return _transformer.self_attention(attention, x, seen)

        def attend_to_memory(x: Tensor) -> Tensor:
            return _transformer.cross_attention(cross, x, seen.lengths, memory, memory_seen)

        x = _transformer.residual(x, self.norm1, attend, self.norm_first)
        x = _transformer.residual(x, self.norm2, attend_to_memory, self.norm_first)
        return _transformer.residual(x, self.norm3, self._feed_forward, self.norm_first)

    def _by_rows(self, x: Tensor) -> Tensor:
        """Between [T, N, d] and [N, T, d], if the layer is not batch_first."""
        return x if self.self_attn.batch_first else x.transpose(0, 1)

    def _encode_padded(
        self,
        src: Tensor,
        mask: Tensor | None,
        padding: Tensor | None,
        is_causal: bool,
        lengths: Tensor | None,
    ) -> Tensor:
        x = self._by_rows(src)
        batch, padding = _without_padding(x, lengths, padding, mask)
        # The mask that is_causal speaks of is not read.
        bias = _transformer.added(None if is_causal else mask, padding, x.shape[0], x.dtype)
        y = self._encode(batch.x, Seen(batch.lengths, bias, is_causal))
        return self._by_rows(_padded(y, batch, x, lengths))

    def _decode_padded(
        self,
        tgt: Tensor,
        memory: Tensor,
        masks: tuple[Tensor | None, Tensor | None],
        paddings: tuple[Tensor | None, Tensor | None],
        are_causal: tuple[bool, bool],
        lengths: tuple[Tensor | None, Tensor | None],
    ) -> Tensor:
        x = self._by_rows(tgt)
        batches, seen = [], []
        for padded, mask, padding, is_causal, counts in zip(
            (x, self._by_rows(memory)), masks, paddings, are_causal, lengths
        ):
            batch, padding = _without_padding(padded, counts, padding, mask)
            bias = _transformer.added(None if is_causal else mask, padding, x.shape[0], x.dtype)
            batches.append(batch)
            seen.append(Seen(batch.lengths, bias, is_causal))
        y = self._decode(batches[0].x, seen[0], batches[1].x, seen[1])
        return self._by_rows(_padded(y, batches[0], x, lengths[0]))


def _without_padding(
    x: Tensor, lengths: Tensor | None, padding: Tensor | None, mask: Tensor | None
) -> tuple[Batch, Tensor | None]:
    """x [N, T, d] without what lengths, or a mask of padding, hide at the end of rows; what it hides elsewhere."""
    if lengths is not None and not values_are_known(lengths):
        # A tracer's: all is computed.
        return _transformer.pack(x, None), _padding_mask(padding, lengths, x, True, mask)
    counts = None if padding is None else _transformer.unpadded(padding)
    if counts is not None:
        padding = None
    if lengths is not None:
        lengths = lengths.to(torch.int64)
        counts = lengths if counts is None else torch.minimum(lengths, counts)
    return _transformer.pack(x, counts), padding


def _padded(y: Tensor, batch: Batch, x: Tensor, lengths: Tensor | None) -> Tensor:
    """y, which was computed of batch, as x [N, T, d]; zero beyond lengths."""
    y = _transformer.unpack(y, batch, *x.shape[:2])
    return y if lengths is None or values_are_known(lengths) else zero_padding(y, lengths, "NTC")


def _lengths_of(name: str, lengths: Lengths | None, x: Tensor, batch_first: bool) -> Tensor | None:
    if lengths is None:
        return None
    if x.dim() != 3 or x.is_nested:
        raise ValueError(f"{name}: expected None with input that is no padded batch")
    rows, steps = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
    return as_lengths(name, lengths, rows, steps)


def _mask_fits(mask: Tensor | None, shapes: list[tuple[int, ...]]) -> bool:
    if mask is None:
        return True
    known = type(mask) is Tensor and mask.device.type == "cpu" and not mask.requires_grad
    return known and tuple(mask.shape) in shapes and (mask.dtype == torch.bool or mask.is_floating_point())


def _padding_mask(
    padding: Tensor | None, lengths: Tensor | None, x: Tensor, batch_first: bool, like: Tensor | None
) -> Tensor | None:
    """A mask of padding that hides what lies beyond lengths, too; of the kind of the mask that goes with it."""
    if lengths is None:
        return padding
    rows, steps = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
    hidden = ~frame_mask(lengths, rows, steps, x.device)
    if padding is not None and padding.dtype == torch.bool:
        hidden, padding = hidden | padding, None
    if padding is None and (like is None or like.dtype == torch.bool):
        return hidden
    padding = torch.zeros(rows, steps, dtype=x.dtype, device=x.device) if padding is None else padding
    return padding.masked_fill(hidden, -torch.inf)


class TransformerEncoderLayer(TransformerLayer, nn.TransformerEncoderLayer):
    """torch.nn.TransformerEncoderLayer with the same constructor, keys and masks, and optional ``lengths``.

    In inference (eval mode, no gradients) on the CPU in float32, with ReLU: a row's result is bit for bit independent of
    its batch and padding, and neither is padding computed. There, frames that ``lengths`` or a padding mask hides at the
    end of a row are zeros, as from torch's fast path; nested tensors are taken, too. Anywhere else the layer is torch's.

    Args:
        d_model: features, in and out. nhead: attention heads, each of d_model / nhead features.
        dim_feedforward: features between the two linear layers. dropout: probability, in training.
        activation: between them, "relu", "gelu" or a function. layer_norm_eps: of the norms.
        batch_first: [N, T, d_model] in place of [T, N, d_model]. norm_first: norms before the blocks, not behind.
        bias: of the linear layers and norms. device, dtype: of the parameters.
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
        """As torch's.

        Args:
            src: [T, N, d_model], or [N, T, d_model] if batch_first; [T, d_model] for one sequence.
            src_mask: [T, T] or [N · nhead, T, T], True for what is not attended to, or to be added to scores.
            src_key_padding_mask: [N, T], likewise.
            is_causal: that src_mask is the causal mask.
            lengths: integers [N], valid frames of each row; all T if None. The output is zero beyond them.

        Returns:
            Shaped as src.

        Raises:
            TypeError: lengths are not integers.
            ValueError: lengths has the wrong shape or values, or comes without a padded batch.
        """
        batch_first = self.self_attn.batch_first
        lengths = _lengths_of("lengths", lengths, src, batch_first)
        if src.is_nested and src_mask is None and src_key_padding_mask is None and self._takes(src):
            rows = src.unbind()
            counts = torch.tensor([len(row) for row in rows])
            y = self._encode(torch.cat(rows), Seen(counts))
            return torch.nested.as_nested_tensor(list(y.split(counts.tolist())))
        if self._fits(src, src_mask, src_key_padding_mask, is_causal):
            return self._encode_padded(src, src_mask, src_key_padding_mask, is_causal, lengths)
        padding = _padding_mask(src_key_padding_mask, lengths, src, batch_first, src_mask)
        y = super().forward(src, src_mask, padding, is_causal)
        return zero_padding(y, lengths, "NTC" if batch_first else "TNC")

    def _fits(self, src: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool) -> bool:
        if src.is_nested or src.dim() != 3 or src.shape[-1] != self.self_attn.embed_dim:
            return False
        rows, steps = src.shape[:2] if self.self_attn.batch_first else (src.shape[1], src.shape[0])
        return (
            rows > 0
            and steps > 0
            and _mask_fits(mask, [(steps, steps), (rows * self.self_attn.num_heads, steps, steps)])
            and _mask_fits(padding, [(rows, steps)])
            and not (is_causal and mask is None)
            and self._takes(src)
        )


class TransformerDecoderLayer(TransformerLayer, nn.TransformerDecoderLayer):
    """torch.nn.TransformerDecoderLayer with the same constructor, keys and masks, and optional ``lengths``.

    What :class:`TransformerEncoderLayer` says holds here. Rows of few queries (queries · heads at most d_model) that see
    all of their memory are not slowed down by its projections.

    Args:
        d_model: features, in and out. nhead: attention heads, each of d_model / nhead features.
        dim_feedforward: features between the two linear layers. dropout: probability, in training.
        activation: between them, "relu", "gelu" or a function. layer_norm_eps: of the norms.
        batch_first: [N, T, d_model] in place of [T, N, d_model]. norm_first: norms before the blocks, not behind.
        bias: of the linear layers and norms. device, dtype: of the parameters.
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
        """As torch's.

        Args:
            tgt: [L, N, d_model], or [N, L, d_model] if batch_first; [L, d_model] for one sequence.
            memory: [S, N, d_model], or [N, S, d_model] if batch_first; [S, d_model] for one sequence.
            tgt_mask: [L, L] or [N · nhead, L, L], True for what is not attended to, or to be added to scores.
            memory_mask: [L, S] or [N · nhead, L, S], likewise.
            tgt_key_padding_mask: [N, L], likewise.
            memory_key_padding_mask: [N, S], likewise.
            tgt_is_causal: that tgt_mask is the causal mask.
            memory_is_causal: that memory_mask is the causal mask.
            lengths: integers [N], valid steps of each row of tgt; all L if None. The output is zero beyond them.
            memory_lengths: integers [N], valid frames of each row of memory; all S if None.

        Returns:
            Shaped as tgt.

        Raises:
            TypeError: lengths are not integers.
            ValueError: lengths has the wrong shape or values, or comes without a padded batch.
        """
        batch_first = self.self_attn.batch_first
        lengths = _lengths_of("lengths", lengths, tgt, batch_first)
        memory_lengths = _lengths_of("memory_lengths", memory_lengths, memory, batch_first)
        masks = tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        if self._fits(tgt, memory, *masks, tgt_is_causal, memory_is_causal):
            return self._decode_padded(
                tgt,
                memory,
                (tgt_mask, memory_mask),
                (tgt_key_padding_mask, memory_key_padding_mask),
                (tgt_is_causal, memory_is_causal),
                (lengths, memory_lengths),
            )
        padding = _padding_mask(tgt_key_padding_mask, lengths, tgt, batch_first, tgt_mask)
        memory_padding = _padding_mask(
            memory_key_padding_mask, memory_lengths, memory, batch_first, memory_mask
        )
        y = super().forward(
            tgt, memory, tgt_mask, memory_mask, padding, memory_padding, tgt_is_causal, memory_is_causal
        )
        return zero_padding(y, lengths, "NTC" if batch_first else "TNC")

    def _fits(
        self,
        tgt: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        memory_mask: Tensor | None,
        padding: Tensor | None,
        memory_padding: Tensor | None,
        is_causal: bool,
        memory_is_causal: bool,
    ) -> bool:
        size, heads = self.self_attn.embed_dim, self.self_attn.num_heads
        if any(x.is_nested or x.dim() != 3 or x.shape[-1] != size for x in (tgt, memory)):
            return False
        batch_first = self.self_attn.batch_first
        rows, steps = tgt.shape[:2] if batch_first else (tgt.shape[1], tgt.shape[0])
        memory_rows, frames = memory.shape[:2] if batch_first else (memory.shape[1], memory.shape[0])
        return (
            rows == memory_rows > 0
            and steps > 0
            and frames > 0
            and _mask_fits(mask, [(steps, steps), (rows * heads, steps, steps)])
            and _mask_fits(memory_mask, [(steps, frames), (rows * heads, steps, frames)])
            and _mask_fits(padding, [(rows, steps)])
            and _mask_fits(memory_padding, [(rows, frames)])
            and not (is_causal and mask is None)
            and not (memory_is_causal and memory_mask is None)
            and self._takes(tgt, memory)
        )
