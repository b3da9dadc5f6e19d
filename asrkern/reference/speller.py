"""A speller's step, row by row and frame by frame."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asrkern.ops.speller import Dense, SpellerBeams, SpellerStep, SpellerWeights
from asrkern.reference.gru import gru_cell
from asrkern.reference.lstm import lstm_cell


def _dense(layer: Dense, x: Tensor) -> Tensor:
    y = layer.weight.to(x.dtype) @ x
    if layer.scale is not None:
        y = y * layer.scale
    return y if layer.bias is None else y + layer.bias


def speller_step(
    weights: SpellerWeights,
    tokens: Tensor,
    states: Tensor,
    context: Tensor,
    previous: Tensor | None,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
) -> SpellerStep:
    """Reference of :func:`asrkern.ops.speller_step`; of weights that are not packed, same arguments."""
    per_memory = len(tokens) // len(keys)
    rows = [
        _one_row(
            weights,
            weights.embedding[tokens[i]],
            states[:, i],
            context[i],
            None if previous is None else previous[i],
            keys[i // per_memory],
            values[i // per_memory],
            int(lengths[i // per_memory]),
        )
        for i in range(len(tokens))
    ]
    logits, attended, states, context = zip(*rows)
    return SpellerStep(
        torch.stack(logits), torch.stack(attended), torch.stack(states, 1), torch.stack(context)
    )


def _one_row(w, x, states, context, previous, keys, values, length):
    if w.feeds_context:
        x = torch.cat((x, context))
    after = []
    for index, cell in enumerate(w.cells):
        gates = _dense(cell.input, x), _dense(cell.hidden, states[len(after)])
        if w.kind == "gru":
            (x,) = gru_cell(*gates, states[len(after)])
            after += [x]
        else:
            x, c = lstm_cell(*gates, *states[2 * index : 2 * index + 2])
            after += [x, c]
    q = x if w.query is None else _dense(w.query, x)
    attended = torch.zeros_like(keys[:, 0])
    contexts = []
    for head_keys, head_q, head_values in zip(
        keys.chunk(w.heads, 1), q.chunk(w.heads), values.chunk(w.heads, 1), strict=True
    ):
        scores = [_score(w, head_q, head_keys[t], previous, t) for t in range(length)]
        scores = torch.stack(scores) if scores else head_keys.new_zeros(0)
        of_head = torch.sigmoid(scores) / torch.sigmoid(scores).sum() if w.smoothing else scores.softmax(0)
        contexts.append(of_head @ head_values[:length])
        attended[:length] += of_head / w.heads
    context = torch.cat(contexts)
    y = {"query": x, "context": context, "both": torch.cat((x, context))}[w.features]
    for index, layer in enumerate(w.outputs):
        y = _dense(layer, torch.tanh(y) if index else y)
    return y, attended, torch.stack(after), context


def _score(w: Any, q: Tensor, key: Tensor, previous: Tensor | None, t: int) -> Tensor:
    if w.scores == "mean":
        return key.new_zeros(())
    if w.scores == "dot":
        return w.scale * (q @ key)
    x = q + key
    if w.location is not None and previous is not None:
        x = x + w.location_bias
        for j, of_offset in enumerate(w.location):
            at = t + j - len(w.location) // 2
            if 0 <= at < len(previous):
                x = x + previous[at] * of_offset
    return w.energy @ torch.tanh(x)


def speller_greedy(
    weights: SpellerWeights,
    tokens: Tensor,
    states: Tensor,
    context: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    eos_token: int,
    max_length: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Reference of :func:`asrkern.ops.speller_greedy`; of weights that are not packed, same arguments."""
    found = tokens.new_zeros(len(tokens), max_length)
    counts, log_probs = torch.zeros_like(tokens), torch.zeros(len(tokens), dtype=torch.float64)
    previous, running = None, torch.ones(len(tokens), dtype=torch.bool)
    for step in range(max_length):
        logits, previous, states, context = speller_step(
            weights, tokens, states, context, previous, keys, values, lengths
        )
        best, tokens = logits.double().log_softmax(1).max(1)
        for row in running.nonzero().flatten().tolist():
            found[row, step] = tokens[row]
            counts[row] += 1
            log_probs[row] += best[row]
        running = running & (tokens != eos_token)
        if not running.any():
            break
    return found, counts, log_probs


def speller_beam(
    weights: SpellerWeights,
    tokens: Tensor,
    states: Tensor,
    context: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    eos_token: int,
    max_length: int,
    beam_width: int,
) -> SpellerBeams:
    """Reference of :func:`asrkern.ops.speller_beam`; of weights that are not packed, same arguments."""
    per_memory = len(tokens) // len(keys)
    rows = [
        _beam_of_row(
            weights,
            tokens[i],
            (states[:, i : i + 1], context[i : i + 1]),
            [t[i // per_memory : i // per_memory + 1] for t in (keys, values, lengths)],
            (eos_token, max_length, beam_width),
        )
        for i in range(len(tokens))
    ]
    longest = max(len(found) for row in rows for found, _, _ in row)
    beams = SpellerBeams(
        tokens.new_zeros(len(rows), beam_width, longest),
        tokens.new_zeros(len(rows), beam_width),
        torch.full((len(rows), beam_width), -torch.inf, dtype=torch.float64),
        torch.zeros(len(rows), beam_width, keys.shape[1], dtype=torch.float64),
    )
    for i, row in enumerate(rows):
        for j, (found, log_prob, coverage) in enumerate(row):
            beams.tokens[i, j, : len(found)] = torch.tensor(found)
            beams.counts[i, j], beams.log_probs[i, j], beams.coverage[i, j] = len(found), log_prob, coverage
    return beams


def _beam_of_row(weights, token, state, memory, search):
    """Tokens, log-probability and coverage of one row's hypotheses."""
    eos_token, max_length, beam_width = search
    found = []
    live = [([], 0.0, memory[0].new_zeros(memory[0].shape[1]).double(), state, None)]
    for _ in range(max_length):
        candidates = []
        for spelled, log_prob, coverage, (states, context), previous in live:
            last = torch.tensor([spelled[-1] if spelled else int(token)])
            step = speller_step(weights, last, states, context, previous, *memory)
            after = coverage + step.weights[0], (step.states, step.context), step.weights
            for next_token, p in enumerate(step.logits[0].double().log_softmax(0).tolist()):
                candidates.append(([*spelled, next_token], log_prob + p, *after))
        candidates = [c for c in candidates if c[1] > -torch.inf]
        candidates.sort(key=lambda c: -c[1])
        best = candidates[: beam_width - len(found)]
        found += [c[:3] for c in best if c[0][-1] == eos_token]
        live = [c for c in best if c[0][-1] != eos_token]
        if not live:
            break
    return found + [c[:3] for c in live]
