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
    beams = steps_of(speller, memory, beam_width).beam(sos_token, eos_token, max_length)
    unknown = beams.log_probs.isnan().any(1)
    if unknown.any():
        row = int(unknown.nonzero()[0])
        raise ValueError(
            f"features: expected those of which the model makes numbers, received NaN in row {row}"
        )
    found = []
    for row, length in enumerate(memory.valid.sum(1).tolist()):
        hypotheses = []
        for slot in beams.counts[row].nonzero().flatten().tolist():
            tokens = beams.tokens[row, slot, : int(beams.counts[row, slot])].tolist()
            spelled = [t for t in tokens if t not in (sos_token, eos_token)]
            log_prob, ended = float(beams.log_probs[row, slot]), tokens[-1] == eos_token
            score = ranking.score(log_prob, len(spelled) + ended, beams.coverage[row, slot, :length])
            hypotheses.append(Hypothesis(spelled, score, log_prob, ended))
        found.append(sorted(hypotheses, key=lambda h: h.score, reverse=True))
    return found
