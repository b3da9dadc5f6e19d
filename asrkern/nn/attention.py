"""Attention of a decoder to encoded frames: scores, and the mean of the frames by them. Lengths are exact throughout.

It is composed of torch's operations: a row is independent of its batch and padding up to rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asrkern._lengths import Lengths
from asrkern.nn._lengths import frame_mask


class AttentionMemory(NamedTuple):
    """What :meth:`Attention.remember` keeps of a batch: everything that does not depend on the query.

    Attributes:
        keys: [N, T, A], what is scored.
        values: [N, T, V], what is averaged.
        valid: bool [N, T], False beyond each length.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor

    def select(self, rows: Tensor) -> AttentionMemory:
        """The memory of other rows: those of the indices ``rows`` [M], in that order."""
        return AttentionMemory(*(tensor.index_select(0, rows) for tensor in self))


class Attention(nn.Module):
    """What all kinds of attention share: ``context = Σ_t weights[t] · values[t]`` over the valid frames.

    Frames beyond a row's length have weight zero exactly. A row of length zero has weights and a context of zero;
    asrkern's models refuse such rows before.
    """

    def remember(self, memory: Tensor, lengths: Lengths | None = None) -> AttentionMemory:
        """Prepare a batch for any number of queries.

        Args:
            memory: [N, T, memory_size], encoded frames; those beyond a length are not read.
            lengths: integers [N], valid frames per row; all T if None.

        Raises:
            TypeError: lengths are not integers.
            ValueError: a shape does not fit, or a length is out of range.
        """
        if memory.dim() != 3:
            raise ValueError(f"memory: expected [N, T, features], received {list(memory.shape)}")
        rows, frames = memory.shape[:2]
        if lengths is None:
            valid = torch.ones(rows, frames, dtype=torch.bool, device=memory.device)
        else:
            valid = frame_mask(lengths, rows, frames, memory.device)
        # masked_fill, not a product: padding may hold inf or NaN.
        memory = memory.masked_fill(~valid[..., None], 0)
        return AttentionMemory(self._keys(memory), self._values(memory), valid)

    def forward(
        self, query: Tensor, memory: AttentionMemory, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            query: [N, L, query_size], the decoder's states of L steps.
            memory: of ``remember``.
            previous: [N, T], the weights of the step before the first query. Only :class:`LocationAwareAttention`
                reads it.

        Returns:
            context [N, L, V] and weights [N, L, T].

        Raises:
            ValueError: query does not fit.
        """
        weights = self._weights(self._scores(query, memory), memory.valid)
        return weights @ memory.values, weights

    def _keys(self, memory: Tensor) -> Tensor:
        return memory

    def _values(self, memory: Tensor) -> Tensor:
        return memory

    def _scores(self, query: Tensor, memory: AttentionMemory) -> Tensor:
        """[N, L, T]."""
        raise NotImplementedError

    def _weights(self, scores: Tensor, valid: Tensor) -> Tensor:
        return masked_softmax(scores, valid[:, None])


def masked_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """Softmax of scores [..., T] over the valid positions; 0 at all others, also in rows without a valid one."""
    # Not -inf: a whole row of it gives NaN, in the gradient too.
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~valid, lowest).softmax(-1).masked_fill(~valid, 0)


class MeanAttention(Attention):
    """No attention: every valid frame has the same weight. It has no parameters."""

    def _scores(self, query: Tensor, memory: AttentionMemory) -> Tensor:
        return query.new_zeros(*query.shape[:2], memory.keys.shape[1])


class DotAttention(Attention):
    """Scores ``q·k`` (Luong et al. 2015). Query and memory have the same size. It has no parameters."""

    def _scores(self, query: Tensor, memory: AttentionMemory) -> Tensor:
        if query.shape[-1] != memory.keys.shape[-1]:
            raise ValueError(
                f"query: expected [N, L, {memory.keys.shape[-1]}], the memory's size, "
                f"received {list(query.shape)}"
            )
        return query @ memory.keys.transpose(1, 2)


class AdditiveAttention(Attention):
    """Scores ``wᵀ tanh(W q + V k + b)`` (Bahdanau et al. 2015); keys ``W.weight, V.weight, b, w.weight``.

    The context is the mean of the memory itself.

    Args:
        query_size, memory_size: features of the query and of the memory.
        attention_size: features inside tanh.
    """

    def __init__(self, query_size: int, memory_size: int, attention_size: int) -> None:
        super().__init__()
        self.W = nn.Linear(query_size, attention_size, bias=False)
        self.V = nn.Linear(memory_size, attention_size, bias=False)
        self.b = nn.Parameter(torch.empty(attention_size).uniform_(-0.1, 0.1))
        self.w = nn.Linear(attention_size, 1, bias=False)

    def _keys(self, memory: Tensor) -> Tensor:
        return self.V(memory)

    def _scores(self, query: Tensor, memory: AttentionMemory) -> Tensor:
        return self._energy(self.W(query)[:, :, None] + memory.keys[:, None])

    def _energy(self, sums: Tensor) -> Tensor:
        """Scores [N, L, T] of [N, L, T, attention_size]."""
        return self.w(torch.tanh(sums + self.b)).squeeze(-1)


class LocationAwareAttention(AdditiveAttention):
    """Additive attention that sees where the step before attended: ``wᵀ tanh(W q + V k + U f + b)``.

    ``f`` is a convolution of the weights of the step before (Chorowski et al. 2015; "hybrid" in KoSpeech). The first
    step has no ``f``. Steps run one after the other. Keys beside :class:`AdditiveAttention`'s: ``loc_conv.*,
    U.weight``.

    Args:
        query_size, memory_size, attention_size: as in :class:`AdditiveAttention`.
        channels: features of ``f``.
        kernel_size: frames that the convolution sees; odd.
        smoothing: normalised sigmoids in place of the softmax; they spread the weight over more frames (section 2.3 of
            the paper).

    Raises:
        ValueError: kernel_size is not odd.
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        attention_size: int,
        *,
        channels: int = 10,
        kernel_size: int = 3,
        smoothing: bool = True,
    ) -> None:
        super().__init__(query_size, memory_size, attention_size)
        if kernel_size % 2 != 1:
            raise ValueError(f"kernel_size: expected an odd number, received {kernel_size}")
        self.loc_conv = nn.Conv1d(1, channels, kernel_size, padding=kernel_size // 2)
        self.U = nn.Linear(channels, attention_size, bias=False)
        self.smoothing = smoothing

    def forward(
        self, query: Tensor, memory: AttentionMemory, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        projected = self.W(query)
        steps = []
        for step in range(query.shape[1]):
            sums = projected[:, step, None] + memory.keys
            if previous is not None:
                sums = sums + self.U(self.loc_conv(previous[:, None]).transpose(1, 2))
            previous = self._weights(self._energy(sums[:, None]), memory.valid)[:, 0]
            steps.append(previous)
        weights = torch.stack(steps, 1)
        return weights @ memory.values, weights

    def _weights(self, scores: Tensor, valid: Tensor) -> Tensor:
        if not self.smoothing:
            return super()._weights(scores, valid)
        weights = torch.sigmoid(scores).masked_fill(~valid[:, None], 0)
        return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)

    def extra_repr(self) -> str:
        return f"smoothing={self.smoothing}"


class MultiHeadAttention(Attention):
    """Scaled dot products of projections in ``num_heads`` heads (Vaswani et al. 2017).

    The weights that it returns are the mean over the heads. Keys ``KW.*, QW.*, VW.*`` as in the HW4P2 line.

    Args:
        query_size, memory_size: features of the query and of the memory.
        attention_size: features of keys, values and context, over all heads.
        num_heads: number of heads; divides attention_size.

    Raises:
        ValueError: num_heads does not divide attention_size.
    """

    def __init__(self, query_size: int, memory_size: int, attention_size: int, num_heads: int = 1) -> None:
        super().__init__()
        if num_heads < 1 or attention_size % num_heads:
            raise ValueError(f"num_heads: expected a divisor of {attention_size}, received {num_heads}")
        self.VW = nn.Linear(memory_size, attention_size)
        self.KW = nn.Linear(memory_size, attention_size)
        self.QW = nn.Linear(query_size, attention_size)
        self.num_heads = num_heads

    def forward(
        self, query: Tensor, memory: AttentionMemory, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        q, k, v = (self._heads(x) for x in (self.QW(query), memory.keys, memory.values))
        context, weights = scaled_dot_product(q, k, v, memory.valid[:, None, None])
        return context.transpose(1, 2).flatten(2), weights.mean(1)

    def _keys(self, memory: Tensor) -> Tensor:
        return self.KW(memory)

    def _values(self, memory: Tensor) -> Tensor:
        return self.VW(memory)

    def _heads(self, x: Tensor) -> Tensor:
        """[N, T, A] → [N, heads, T, A / heads]."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}"


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """``softmax(q kᵀ / √size) v`` over valid frames: [..., L, V] and the weights [..., L, T].

    Args:
        query: [..., L, size]; key: [..., T, size]; value: [..., T, V].
        valid: bool, broadcast to [..., L, T].
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = masked_softmax(scores, valid)
    return weights @ value, weights
