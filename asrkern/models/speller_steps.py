"""How a search takes a speller from token to token: layer by layer, or all of a step in one operation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asrkern import ops
from asrkern.models.speller import (
    CellSpeller,
    GRUSpeller,
    Speller,
    SpellerState,
    _CombinedDot,
    _CombinedMultiHead,
)
from asrkern.nn import (
    GRU,
    AdditiveAttention,
    AttentionMemory,
    DotAttention,
    LocationAwareAttention,
    LockedDropout,
    LSTMCell,
    MeanAttention,
    MultiHeadAttention,
    QuantizedCell,
    QuantizedGRU,
    QuantizedLinear,
)
from asrkern.nn._hooks import is_altered
from asrkern.ops import Dense, PackedSpeller, SpellerBeams, SpellerCell, SpellerWeights

# Classes that the kernels compute like. Subclasses (parametrizations make some) may compute something else.
_LAYERS = {
    *(CellSpeller, GRUSpeller, nn.ModuleList, nn.ModuleDict),
    *(
        nn.Embedding,
        nn.LSTMCell,
        LSTMCell,
        QuantizedCell,
        GRU,
        QuantizedGRU,
        nn.Linear,
        QuantizedLinear,
        nn.Conv1d,
    ),
    *(nn.Dropout, LockedDropout),
    *(MeanAttention, DotAttention, AdditiveAttention, LocationAwareAttention, MultiHeadAttention),
    *(_CombinedDot, _CombinedMultiHead),
}


class Steps:
    """The steps of a batch of utterances, with ``copies`` rows for each.

    Args:
        speller: in eval mode.
        memory: of :meth:`Speller.remember`.
        copies: rows of each utterance, such as the width of a beam.
    """

    def __init__(self, speller: Speller, memory: AttentionMemory, copies: int = 1) -> None:
        self.speller, self.memory, self.copies = speller, memory, copies
        if copies > 1:
            rows = torch.arange(memory.valid.shape[0], device=memory.valid.device)
            self.memory = memory.select(rows.repeat_interleave(copies))

    def start(self) -> SpellerState:
        """The state before the first token."""
        return self.speller.start(self.memory)

    def step(self, tokens: Tensor, state: SpellerState) -> tuple[Tensor, Tensor, SpellerState]:
        """One token per row, [N] → logits [N, num_tokens], attention weights [N, T'] and the state after it."""
        return self.speller.step(tokens, state, self.memory)

    def greedy(self, sos_token: int, eos_token: int, max_length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Take the most probable token at each step. Returns what :func:`asrkern.ops.speller_greedy` returns."""
        rows, device = self.memory.valid.shape[0], self.memory.valid.device
        state = self.start()
        token = torch.full((rows,), sos_token, device=device)
        log_probs = torch.zeros(rows, dtype=torch.float64, device=device)
        counts = torch.zeros_like(token)
        running = torch.ones(rows, dtype=torch.bool, device=device)
        tokens = []
        for _ in range(max_length):
            logits, _, state = self.step(token, state)
            dtype = torch.promote_types(logits.dtype, torch.float32)
            best, token = logits.log_softmax(-1, dtype=dtype).max(-1)
            # After its end a row adds nothing.
            log_probs += torch.where(running, best.double(), 0)
            counts += running
            running = running & (token != eos_token)
            tokens.append(token)
            if not running.any():
                break
        return torch.stack(tokens, 1), counts, log_probs

    def beam(self, sos_token: int, eos_token: int, max_length: int) -> SpellerBeams:
        """Keep the ``copies`` most probable hypotheses. Returns what :func:`asrkern.ops.speller_beam` returns."""
        width, frames = self.copies, self.memory.valid.shape[1]
        rows, device = self.memory.valid.shape[0] // width, self.memory.valid.device
        state = self.start()
        token = torch.full((rows * width,), sos_token, device=device)
        # At first only the first slot of each row holds a hypothesis; -inf marks the others.
        log_probs = torch.full((rows, width), -torch.inf, dtype=torch.float64, device=device)
        log_probs[:, 0] = 0
        tokens = torch.empty(rows * width, 0, dtype=torch.long, device=device)
        coverage = torch.zeros(rows * width, frames, dtype=torch.float64, device=device)
        found: list[list[tuple[Tensor, float, Tensor]]] = [[] for _ in range(rows)]

        def add(slots: Tensor) -> None:
            for slot in slots.nonzero().flatten().tolist():
                found[slot // width].append((tokens[slot], float(log_probs.flatten()[slot]), coverage[slot]))

        for _ in range(max_length):
            logits, weights, state = self.step(token, state)
            step = logits.log_softmax(-1, dtype=torch.float64).unflatten(0, (rows, width))
            live = log_probs.isfinite()
            # Without numbers there is nothing to choose from: NaN ends the row.
            unknown = (step.isnan().any(-1) & live).any(1)
            candidates = torch.where(live[..., None], log_probs[..., None] + step, -torch.inf).flatten(1)
            log_probs, chosen = candidates.masked_fill(unknown[:, None], torch.nan).topk(width)
            room = torch.tensor([width - len(hypotheses) for hypotheses in found], device=device)
            room = room.masked_fill(unknown, 1)
            log_probs[torch.arange(width, device=device) >= room[:, None]] = -torch.inf
            origins = chosen // step.shape[-1] + width * torch.arange(rows, device=device)[:, None]
            origins, token = origins.flatten(), (chosen % step.shape[-1]).flatten()
            state = state.select(origins)
            coverage = (coverage + weights)[origins]
            tokens = torch.cat((tokens[origins], token[:, None]), 1)
            ended = log_probs.flatten().isfinite() & (token == eos_token) | log_probs.flatten().isnan()
            add(ended)
            log_probs = log_probs.masked_fill(ended.view_as(log_probs), -torch.inf)
            if not log_probs.isfinite().any():
                break
        add(log_probs.flatten().isfinite())
        beams = SpellerBeams(
            tokens.new_zeros(rows, width, tokens.shape[1]),
            tokens.new_zeros(rows, width),
            torch.full_like(log_probs, -torch.inf),
            coverage.new_zeros(rows, width, frames),
        )
        for row, hypotheses in enumerate(found):
            for slot, (spelled, log_prob, seen) in enumerate(hypotheses):
                beams.tokens[row, slot, : len(spelled)] = spelled
                beams.counts[row, slot] = len(spelled)
                beams.log_probs[row, slot], beams.coverage[row, slot] = log_prob, seen
        return beams


class _FusedState(NamedTuple):
    """A state of :class:`FusedSteps`, as :class:`SpellerState` is one of :class:`Steps`.

    states [states, N, size] of the cells; context [N, C]; weights [N, T'] or None.
    """

    states: Tensor
    context: Tensor
    weights: Tensor | None = None

    def select(self, rows: Tensor) -> _FusedState:
        weights = None if self.weights is None else self.weights.index_select(0, rows)
        return _FusedState(self.states.index_select(1, rows), self.context.index_select(0, rows), weights)


class FusedSteps(Steps):
    """Steps by :func:`asrkern.ops.speller_step`, :func:`~asrkern.ops.speller_greedy`, :func:`~asrkern.ops.speller_beam`.

    The rows of an utterance share its memory. Weights are read once, when this is made.
    """

    def __init__(
        self, speller: Speller, memory: AttentionMemory, packed: PackedSpeller, copies: int = 1
    ) -> None:
        super().__init__(speller, memory)
        self.packed, self.copies = packed, copies
        self._memory = memory.keys, memory.values, memory.valid.sum(1)

    def start(self) -> Any:
        states, context = self.speller.stacked(super().start(), self.memory)
        return _FusedState(
            states.repeat_interleave(self.copies, 1), context.repeat_interleave(self.copies, 0)
        )

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        states, context, previous = state
        after = ops.speller_step(self.packed, tokens, states, context, previous, *self._memory)
        return after.logits, after.weights, _FusedState(after.states, after.context, after.weights)

    def greedy(self, sos_token: int, eos_token: int, max_length: int) -> tuple[Tensor, Tensor, Tensor]:
        states, context, _ = self.start()
        tokens = torch.full((context.shape[0],), sos_token)
        return ops.speller_greedy(self.packed, tokens, states, context, *self._memory, eos_token, max_length)

    def beam(self, sos_token: int, eos_token: int, max_length: int) -> SpellerBeams:
        # The operation itself makes the copies.
        states, context = self.speller.stacked(super().start(), self.memory)
        tokens = torch.full((context.shape[0],), sos_token)
        ends = eos_token, max_length, self.copies
        return ops.speller_beam(self.packed, tokens, states, context, *self._memory, *ends)


def steps_of(speller: Speller, memory: AttentionMemory, copies: int = 1) -> Steps:
    """The steps of a speller in eval mode: fused if the kernels know all of it.

    That is on the CPU, in float32 or quantised, with every layer in eval mode, of its original class and without hooks.
    """
    weights = None
    if all(type(m) in _LAYERS and not (m.training or is_altered(m)) for m in speller.modules()) and all(
        type(t) is Tensor and t.device.type == "cpu" and t.dtype == torch.float32
        for t in (memory.keys, memory.values)
    ):
        weights = _weights_of(speller)
    if weights is None or not _can_fuse(speller, weights):
        return Steps(speller, memory, copies)
    packed = speller.packed.get(
        "speller", tuple(_tensors(weights)), lambda *_: ops.pack_speller(weights), *_settings(weights)
    )
    return FusedSteps(speller, memory, packed, copies)


def _can_fuse(speller: Speller, weights: SpellerWeights) -> bool:
    layers = [*weights.outputs, *(() if weights.query is None else (weights.query,))]
    for cell in weights.cells:
        layers += cell
    stored = {layer.weight.dtype for layer in layers}
    return (
        len(stored) == 1
        and stored <= {torch.float32, torch.bfloat16, torch.int8}
        and all(
            t.device.type == "cpu" and (t.dtype == torch.float32 or t.dtype in stored)
            for t in _tensors(weights)
        )
    )


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, tuple) else []


def _settings(value: object) -> list[Any]:
    """What is no tensor."""
    if isinstance(value, tuple):
        return [setting for part in value for setting in _settings(part)]
    return [] if isinstance(value, Tensor) else [value]


def _dense(layer: Any, bias: Tensor | None = None) -> Dense:
    return Dense(layer.weight, getattr(layer, "scale", None), layer.bias if bias is None else bias)


def _matrix(layer: Any) -> Tensor:
    """The weight of a small layer in float32."""
    weight = layer.weight.detach()
    return weight if getattr(layer, "scale", None) is None else weight.float() * layer.scale[:, None]


def _attention(attend: Any) -> dict[str, Any] | None:
    """Fields of :class:`SpellerWeights`; None if it is not an attention of asrkern's."""
    linears = [m for m in attend.children() if not isinstance(m, nn.Conv1d)]
    if any(type(m) not in (nn.Linear, QuantizedLinear) for m in linears):
        return None
    if isinstance(attend, MeanAttention):
        return {"scores": "mean"}
    if isinstance(attend, DotAttention):
        return {"scores": "dot"}
    if isinstance(attend, MultiHeadAttention):
        heads, size = attend.num_heads, attend.QW.out_features
        return {
            "scores": "dot",
            "query": _dense(attend.QW),
            "heads": heads,
            "scale": 1 / math.sqrt(size // heads),
        }
    if not isinstance(attend, AdditiveAttention) or attend.W.bias is not None or attend.w.bias is not None:
        return None
    fields: dict[str, Any] = {
        "scores": "additive",
        "query": _dense(attend.W, attend.b),
        "energy": _matrix(attend.w)[0].float(),
    }
    if isinstance(attend, LocationAwareAttention):
        # Convolution and projection are both linear, so they become one.
        convolution: Any = attend.loc_conv
        if attend.U.bias is not None or not _is_centred(convolution):
            return None
        u = _matrix(attend.U).float()
        fields |= {
            "location": (u @ convolution.weight.detach()[:, 0]).t().contiguous(),
            "location_bias": u @ convolution.bias.detach(),
            "smoothing": attend.smoothing,
        }
    return fields


def _is_centred(convolution: nn.Conv1d) -> bool:
    """Whether it makes of each frame what LocationAwareAttention's does."""
    [size], [channels] = convolution.kernel_size, [convolution.in_channels]
    plain = nn.Conv1d(channels, convolution.out_channels, size, padding=size // 2, device="meta")
    return convolution.bias is not None and all(
        getattr(convolution, name) == getattr(plain, name)
        for name in ("stride", "padding", "dilation", "groups", "padding_mode")
    )


def _cells(kind: str, cells: list[tuple[object, str]]) -> tuple[SpellerCell, ...]:
    """Cells of modules that have ``weight_ih<suffix>`` and so on, and scales if they are quantised."""

    def dense(module: object, part: str, suffix: str) -> Dense:
        name = f"weight_{part}{suffix}"
        return Dense(
            getattr(module, name),
            getattr(module, f"{name}_scale", None),
            getattr(module, f"bias_{part}{suffix}", None),
        )

    return tuple(SpellerCell(dense(m, "ih", suffix), dense(m, "hh", suffix)) for m, suffix in cells)


def _weights_of(speller: Speller) -> SpellerWeights | None:
    """The weights for the kernels; None if the speller computes something else with them."""
    linear = (nn.Linear, QuantizedLinear)
    if speller.embedding.max_norm is not None:
        return None
    if type(speller) is CellSpeller:
        layers = speller.output_to_char, speller.linear1, speller.char_prob
        fields = _attention(speller.attend)
        plain = all(type(m) in linear for m in layers) and all(
            type(cell) in (nn.LSTMCell, LSTMCell, QuantizedCell) for cell in speller.lstm_cells
        )
        if fields is None or not plain:
            return None
        return SpellerWeights(
            "lstm",
            speller.embedding.weight,
            _cells("lstm", [(cell, "") for cell in speller.lstm_cells]),
            tuple(_dense(layer) for layer in layers),
            feeds_context=True,
            **fields,
        )
    if type(speller) is not GRUSpeller or type(speller.out) not in linear:
        return None
    attend: Any = speller.attention["attention"]
    rnn = speller.rnn
    fields = _attention(attend)
    if fields is None or getattr(rnn, "merge", None) != "concat":
        return None
    outputs: tuple[Dense, ...] = (_dense(speller.out),)
    features = "context" if speller.use_attention else "query"
    if hasattr(attend, "W") and not isinstance(attend, AdditiveAttention):
        # The layer takes [context; query], the kernel [query; context].
        size, combine = rnn.hidden_size, _dense(attend.W)
        turned = torch.cat((combine.weight[:, -size:], combine.weight[:, :-size]), 1).detach()
        outputs, features = (combine._replace(weight=turned), *outputs), "both"
    return SpellerWeights(
        "gru",
        speller.embedding.weight,
        _cells("gru", [(rnn, f"_l{layer}") for layer in range(rnn.num_layers)]),
        outputs,
        features,
        **fields,
    )
