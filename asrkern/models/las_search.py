"""Greedy and beam search of an attention decoder; both stop at the end of a sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asrkern.models.speller import Speller
from asrkern.models.speller_steps import steps_of
from asrkern.nn import AttentionMemory


class Hypothesis(NamedTuple):
    """One way to spell an utterance.

    Attributes:
        tokens: without start and end of the sequence.
        score: what hypotheses are ranked by; log_prob unless another ranking is asked for.
        log_prob: natural logarithm of the probability of all tokens that were predicted, the end included.
        ended: whether the end was predicted, or the search stopped at its maximum length.
    """

    tokens: list[int]
    score: float
    log_prob: float
    ended: bool


@torch.no_grad()
def greedy_search(
    speller: Speller, memory: AttentionMemory, sos_token: int, eos_token: int, max_length: int
) -> list[Hypothesis]:
    """The most probable token at each step, until each row has ended; one hypothesis per row."""
    steps = steps_of(speller, memory)
    tokens, counts, log_probs = steps.greedy(sos_token, eos_token, max_length)
    # max_length may be very large, meaning no limit.
    tokens = tokens[:, : int(counts.max())]
    found = []
    for row, count, log_prob in zip(tokens.tolist(), counts.tolist(), log_probs.tolist(), strict=True):
        ended = row[count - 1] == eos_token
        spelled = row[: count - 1] if ended else row[:count]
        found.append(Hypothesis([t for t in spelled if t != sos_token], log_prob, log_prob, ended))
    return found


class Ranking(NamedTuple):
    """How hypotheses of different lengths are compared (Wu et al. 2016, "GNMT", section 7).

    ``score = log P / ((5 + |Y|) / 6)^α + β Σ_t log min(Σ_step weights[step, t], 1)``. |Y| counts the tokens and the
    end; t goes over the row's valid frames.

    Attributes:
        length_normalisation: α; 0 compares log-probabilities.
        coverage_penalty: β; 0 is none.
    """

    length_normalisation: float = 0.0
    coverage_penalty: float = 0.0

    def score(self, log_prob: float, length: int, coverage: Tensor) -> float:
        """coverage: [T], for each valid frame the sum of its weights over all steps."""
        score = log_prob / ((5 + length) / 6) ** self.length_normalisation
        if self.coverage_penalty:
            # A frame that no step attended to would make it infinite.
            seen = coverage.double().clamp(torch.finfo(torch.float32).tiny, 1).log().sum()
            score += self.coverage_penalty * float(seen)
        return score


@torch.no_grad()
def beam_search(
    speller: Speller,
    memory: AttentionMemory,
    sos_token: int,
    eos_token: int,
    max_length: int,
    beam_width: int,
    ranking: Ranking,
) -> list[list[Hypothesis]]:
    """Keep the most probable hypotheses at each step; one list per row, the best first.

    A hypothesis that ends leaves the beam, which becomes narrower by one; so beam_width hypotheses are found for each
    row. Hypotheses that have not ended after max_length steps are ranked among the others. Within the search
    log-probabilities are compared, since all hypotheses there have one length.

    Raises:
        ValueError: the model's output is not a number.
    """
    rows, device = memory.valid.shape[0], memory.valid.device
    lengths = memory.valid.sum(1).tolist()
    steps = steps_of(speller, memory, beam_width)
    state = steps.start()
    token = torch.full((rows * beam_width,), sos_token, device=device)
    # At first only the first slot of each row holds a hypothesis; -inf marks the others.
    log_probs = torch.full((rows, beam_width), -torch.inf, dtype=torch.float64, device=device)
    log_probs[:, 0] = 0
    tokens = torch.empty(rows * beam_width, 0, dtype=torch.long, device=device)
    frames = memory.valid.shape[1]
    coverage = torch.zeros(rows * beam_width, frames, dtype=torch.float64, device=device)
    found: list[list[Hypothesis]] = [[] for _ in range(rows)]

    def add(slot: int, log_prob: float, ended: bool) -> None:
        row = slot // beam_width
        spelled = [t for t in tokens[slot].tolist() if t not in (sos_token, eos_token)]
        score = ranking.score(log_prob, len(spelled) + ended, coverage[slot, : lengths[row]])
        found[row].append(Hypothesis(spelled, score, log_prob, ended))

    for _ in range(max_length):
        logits, weights, state = steps.step(token, state)
        step = logits.log_softmax(-1, dtype=torch.float64).unflatten(0, (rows, beam_width))
        unknown = step.isnan().any(-1) & log_probs.isfinite()
        if unknown.any():
            # Without numbers there is nothing to choose from.
            row = int(unknown.any(1).nonzero()[0])
            raise ValueError(
                f"features: expected those of which the model makes numbers, received NaN in row {row}"
            )
        candidates = (log_probs[..., None] + step).flatten(1)
        log_probs, chosen = candidates.topk(beam_width)
        room = torch.tensor([beam_width - len(hypotheses) for hypotheses in found], device=device)
        log_probs[torch.arange(beam_width, device=device) >= room[:, None]] = -torch.inf
        origins = chosen // step.shape[-1] + beam_width * torch.arange(rows, device=device)[:, None]
        origins, token = origins.flatten(), (chosen % step.shape[-1]).flatten()
        state = state.select(origins)
        coverage = (coverage + weights)[origins]
        tokens = torch.cat((tokens[origins], token[:, None]), 1)
        ended = (token == eos_token) & log_probs.flatten().isfinite()
        for slot in ended.nonzero().flatten().tolist():
            add(slot, float(log_probs.flatten()[slot]), True)
        log_probs = log_probs.masked_fill(ended.view_as(log_probs), -torch.inf)
        if not log_probs.isfinite().any():
            break
    for slot in log_probs.flatten().isfinite().nonzero().flatten().tolist():
        add(slot, float(log_probs.flatten()[slot]), False)
    return [sorted(hypotheses, key=lambda h: h.score, reverse=True) for hypotheses in found]
