"""The spellers of Listen-Attend-Spell: from the listener's frames to tokens, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from asrkern.models import teacher_forcing
from asrkern.models.las_config import LASConfig
from asrkern.models.listener import make_dropout
from asrkern.nn import (
    GRU,
    AdditiveAttention,
    Attention,
    AttentionMemory,
    DotAttention,
    LocationAwareAttention,
    LockedDropout,
    LSTMCell,
    MeanAttention,
    MultiHeadAttention,
)
from asrkern.nn._packed import PackedCache


class SpellerState(NamedTuple):
    """What a speller carries from step to step, one row per hypothesis.

    Attributes:
        hidden: tensors [N, ...], what the next step is fed back.
        weights: [N, T'], with which the last step attended; None before the first.
        masks: [N, features], of locked dropout.
    """

    hidden: tuple[Tensor, ...]
    weights: Tensor | None = None
    masks: tuple[Tensor, ...] = ()

    def select(self, rows: Tensor) -> SpellerState:
        """The rows of these indices, in that order."""
        return SpellerState(
            tuple(h.index_select(0, rows) for h in self.hidden),
            None if self.weights is None else self.weights.index_select(0, rows),
            tuple(m.index_select(0, rows) for m in self.masks),
        )


class Speller(nn.Module):
    """What the two spellers share. The state begins with zeros, so that nothing is random in eval mode."""

    embedding: nn.Embedding
    # For asrkern.nn.freeze: its steps read its layers' weights, of which it keeps packed copies.
    packs_its_layers = True

    def __init__(self) -> None:
        super().__init__()
        self.packed = PackedCache()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # Models that were pickled whole by earlier releases do not have it.
        self.__dict__.setdefault("packed", PackedCache())

    def stacked(self, state: SpellerState, memory: AttentionMemory) -> tuple[Tensor, Tensor]:
        """What :func:`asrkern.ops.speller_step` takes: the states of all cells [states, N, size], and the context [N, C]."""
        raise NotImplementedError

    def tie_output(self) -> None:
        """Make the weight of the output layer that of the embedding."""
        raise NotImplementedError

    def remember(self, frames: Tensor, lengths: Tensor) -> AttentionMemory:
        """The listener's output [N, T', listener_size], prepared for attention."""
        raise NotImplementedError

    def start(self, memory: AttentionMemory) -> SpellerState:
        """The state before the first token."""
        raise NotImplementedError

    def run(
        self, tokens: Tensor, state: SpellerState, memory: AttentionMemory
    ) -> tuple[Tensor, Tensor, SpellerState]:
        """Take tokens [N, L] → features [N, L, D], attention weights [N, L, T'] and the state after them."""
        raise NotImplementedError

    def run_known(
        self, tokens: Tensor, state: SpellerState, memory: AttentionMemory, forced: list[bool] | None
    ) -> tuple[Tensor, Tensor] | None:
        """Features and attention weights of all steps; None if steps have to be taken one by one.

        tokens, memory, forced: as in :meth:`forward`; state: of :meth:`start`.
        """
        return self.run(tokens, state, memory)[:2] if forced is None else None

    def classify(self, features: Tensor, state: SpellerState) -> Tensor:
        """features [N, L, D] → logits [N, L, num_tokens]."""
        raise NotImplementedError

    def step(
        self, tokens: Tensor, state: SpellerState, memory: AttentionMemory
    ) -> tuple[Tensor, Tensor, SpellerState]:
        """Take one token per row, [N] → logits [N, num_tokens], attention weights [N, T'] and the new state."""
        features, weights, state = self.run(tokens[:, None], state, memory)
        return self.classify(features, state)[:, 0], weights[:, 0], state

    def forward(
        self, tokens: Tensor, memory: AttentionMemory, forced: list[bool] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Spell with given tokens.

        Args:
            tokens: [N, L], the correct input of each step.
            memory: of :meth:`remember`.
            forced: for each step whether it takes its token from tokens (teacher forcing), or else the most
                probable one of the step before; the first always does. None: all of them.

        Returns:
            logits [N, L, num_tokens] and attention weights [N, L, T'].
        """
        state = self.start(memory)
        known = self.run_known(tokens, state, memory, forced)
        if known is not None:
            return self.classify(known[0], state), known[1]
        logits, alignments, token = [], [], tokens[:, 0]
        for index, given in enumerate(forced or ()):
            token = tokens[:, index] if given else token
            step_logits, step_weights, state = self.step(token, state, memory)
            logits.append(step_logits)
            alignments.append(step_weights)
            token = step_logits.argmax(-1)
        return torch.stack(logits, 1), torch.stack(alignments, 1)


def make_attention(config: LASConfig) -> Attention:
    """The attention that a configuration names, from the speller's size to the listener's."""
    sizes = (config.speller_size, config.listener_size, config.attention_size)
    if not config.use_attention:
        return MeanAttention()
    if config.attention == "dot":
        return DotAttention()
    if config.attention == "additive":
        return AdditiveAttention(*sizes)
    if config.attention == "location":
        return LocationAwareAttention(*sizes, smoothing=config.attention_smoothing)
    return MultiHeadAttention(*sizes, num_heads=config.attention_heads)


class CellSpeller(Speller):
    """HW4P2's: LSTM cells on embedding and context, then three linear layers ("CDN") on output and context.

    Keys ``attend.*`` (the attention is given, since the model has it too), ``embedding.*``, ``lstm_cells.N.*``,
    ``output_to_char.*``, ``linear1.*``, ``char_prob.*``. The cells are asrkern's.
    """

    def __init__(self, config: LASConfig, attend: Attention) -> None:
        super().__init__()
        self.context_size = config.context_size
        self.attend = attend
        size = config.embedding_size
        self.embedding = nn.Embedding(config.num_tokens, size, padding_idx=config.pad_token)
        width = config.speller_size
        self.lstm_cells = nn.ModuleList(
            LSTMCell(width if index else size + config.context_size, width)
            for index in range(config.speller_layers)
        )
        cell: Any
        for cell in self.lstm_cells:
            nn.init.uniform_(cell.weight_ih, -0.1, 0.1)
            nn.init.uniform_(cell.weight_hh, -0.1, 0.1)
        self.output_to_char = nn.Linear(config.speller_size + config.context_size, size)
        self.linear1 = nn.Linear(size, size)
        self.char_prob = nn.Linear(size, config.num_tokens)
        self.dropout = make_dropout(config)

    def tie_output(self) -> None:
        self.char_prob.weight = self.embedding.weight

    def remember(self, frames: Tensor, lengths: Tensor) -> AttentionMemory:
        return self.attend.remember(frames, lengths)

    def start(self, memory: AttentionMemory) -> SpellerState:
        rows = memory.values.shape[0]
        first: Any = self.lstm_cells[0]
        zeros = memory.values.new_zeros(rows, first.hidden_size)
        masks = ()
        if isinstance(self.dropout, LockedDropout):
            like = memory.values.new_empty(rows, self.linear1.in_features)
            masks = (self.dropout.sample(like), self.dropout.sample(like))
        context = memory.values.new_zeros(rows, self.context_size)
        return SpellerState((context, *(zeros,) * (2 * len(self.lstm_cells))), None, masks)

    def stacked(self, state: SpellerState, memory: AttentionMemory) -> tuple[Tensor, Tensor]:
        context, *cells = state.hidden
        return torch.stack(cells), context

    def run_known(
        self, tokens: Tensor, state: SpellerState, memory: AttentionMemory, forced: list[bool] | None
    ) -> tuple[Tensor, Tensor] | None:
        if not teacher_forcing.can_spell(self, memory, forced):
            return super().run_known(tokens, state, memory, forced)

        def choose(features: Tensor) -> Tensor:
            return self.classify(features[:, None], state)[:, 0].argmax(-1)

        return teacher_forcing.spell(self, tokens, memory, forced, choose)

    def run(
        self, tokens: Tensor, state: SpellerState, memory: AttentionMemory
    ) -> tuple[Tensor, Tensor, SpellerState]:
        features, alignments = [], []
        (context, *cells), weights = state.hidden, state.weights
        for embedded in self.embedding(tokens).unbind(1):
            x, before, cells = torch.cat((embedded, context), 1), cells, []
            for cell, h, c in zip(self.lstm_cells, before[::2], before[1::2], strict=True):
                x, c = cell(x, (h, c))
                cells += [x, c]
            context, weights = (y.squeeze(1) for y in self.attend(x[:, None], memory, weights))
            features.append(torch.cat((x, context), 1))
            alignments.append(weights)
        state = SpellerState((context, *cells), weights, state.masks)
        return torch.stack(features, 1), torch.stack(alignments, 1), state

    def classify(self, features: Tensor, state: SpellerState) -> Tensor:
        x = features
        for index, linear in enumerate((self.output_to_char, self.linear1)):
            x = torch.tanh(linear(x))
            x = self.dropout(x, *state.masks[index : index + 1])
        return self.char_prob(x)


if TYPE_CHECKING:
    # What stands behind it among the bases.
    _Base = Attention
else:
    _Base = object


class _Combined(_Base):
    """In front of an attention among the bases: the context becomes ``tanh(W [context; query])``."""

    W: nn.Linear

    def forward(
        self, query: Tensor, memory: AttentionMemory, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        context, weights = super().forward(query, memory, previous)
        return torch.tanh(self.W(torch.cat((context, query), -1))), weights


class _CombinedDot(_Combined, DotAttention):
    def __init__(self, config: LASConfig) -> None:
        super().__init__()
        self.W = _combination(config)


class _CombinedMultiHead(_Combined, MultiHeadAttention):
    def __init__(self, config: LASConfig) -> None:
        super().__init__(
            config.speller_size, config.listener_size, config.attention_size, config.attention_heads
        )
        self.W = _combination(config)


def _combination(config: LASConfig) -> nn.Linear:
    return nn.Linear(config.context_size + config.speller_size, config.speller_size)


class GRUSpeller(Speller):
    """KoSpeech's: a GRU on embeddings, whose output is the query, and an output layer on what comes of attention.

    Dot and multi-head attention give ``tanh(W [context; query])``; additive and location-aware attention give the
    context alone, as in the lineage. Without attention the output layer is on the GRU, which begins with the mean of
    the listener's frames (the lineage then did not listen at all). Keys ``rnn.*``, ``embedding.*``,
    ``attention.attention.*``, ``out.*``. The GRU is asrkern's.
    """

    def __init__(self, config: LASConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.num_tokens, config.embedding_size)
        self.input_dropout = make_dropout(config)
        self.rnn = GRU(
            config.embedding_size,
            config.speller_size,
            config.speller_layers,
            batch_first=True,
            dropout=config.dropout if config.speller_layers > 1 else 0,
        )
        combined: dict[str, Callable[[LASConfig], Attention]] = {
            "dot": _CombinedDot,
            "multi_head": _CombinedMultiHead,
        }
        build = combined.get(config.attention, make_attention) if config.use_attention else make_attention
        # The name is twice in the key.
        self.attention = nn.ModuleDict({"attention": build(config)})
        self.use_attention = config.use_attention
        self.out = nn.Linear(config.gru_output_size, config.num_tokens)

    def tie_output(self) -> None:
        self.out.weight = self.embedding.weight

    def remember(self, frames: Tensor, lengths: Tensor) -> AttentionMemory:
        attend: Any = self.attention["attention"]
        return attend.remember(frames, lengths)

    def start(self, memory: AttentionMemory) -> SpellerState:
        rows, layers = memory.values.shape[0], self.rnn.num_layers
        if self.use_attention:
            h = memory.values.new_zeros(rows, layers, self.rnn.hidden_size)
        else:
            query = memory.values.new_empty(rows, 1, 0)
            h = self.attention["attention"](query, memory)[0].expand(-1, layers, -1)
        masks = ()
        if isinstance(self.input_dropout, LockedDropout):
            masks = (self.input_dropout.sample(h.new_empty(rows, self.rnn.input_size)),)
        return SpellerState((h,), None, masks)

    def stacked(self, state: SpellerState, memory: AttentionMemory) -> tuple[Tensor, Tensor]:
        h = state.hidden[0]
        # Its cells do not get the context.
        return h.transpose(0, 1), h.new_zeros(h.shape[0], memory.values.shape[-1])

    def run(
        self, tokens: Tensor, state: SpellerState, memory: AttentionMemory
    ) -> tuple[Tensor, Tensor, SpellerState]:
        x = self.input_dropout(self.embedding(tokens), *state.masks)
        query, h = self.rnn(x, state.hidden[0].transpose(0, 1).contiguous())
        context, weights = self.attention["attention"](query, memory, state.weights)
        state = SpellerState((h.transpose(0, 1),), weights[:, -1], state.masks)
        return context if self.use_attention else query, weights, state

    def classify(self, features: Tensor, state: SpellerState) -> Tensor:
        return self.out(features)
