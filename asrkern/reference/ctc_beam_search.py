"""CTC prefix beam search and the sums that it approximates, in plain Python."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Prefix = tuple[int, ...]
# How often it is looked at whether prefixes are to be dropped that differ too far back.
SETTLE_FRAMES = 64
# What a prefix is worth beside its acoustic score: context(tokens, final) in nats, −inf if it is not allowed.
Context = Callable[[Prefix, bool], float]


class Hypothesis(NamedTuple):
    """score = am_score + what the context gives."""

    tokens: Prefix
    score: float
    am_score: float


def no_context(tokens: Prefix, final: bool) -> float:
    """Nothing but acoustics."""
    return 0.0


def log_add(*values: float) -> float:
    """``ln Σ e^x``."""
    best = max(values)
    return best if math.isinf(best) else best + math.log(sum(math.exp(x - best) for x in values))


def possible_tokens(frame: Sequence[float], token_min_logp: float, top_tokens: int | None) -> set[int]:
    """The tokens that pruning leaves: the likeliest, and those likely enough among the ``top_tokens`` likeliest."""
    order = sorted(range(len(frame)), key=lambda v: -frame[v])
    return {v for v in order[:top_tokens] if frame[v] >= token_min_logp} | {order[0]}


def ctc_beam_search(
    log_probs: Sequence[Sequence[float]],
    blank: int = 0,
    beam_width: int = 100,
    *,
    token_min_logp: float = -math.inf,
    beam_prune_logp: float = -math.inf,
    top_tokens: int | None = None,
    blank_penalty: float = 0.0,
    log_add: Callable[..., float] = log_add,
    history: int = 512,
    context: Context = no_context,
) -> list[Hypothesis]:
    """Reference of :func:`asrkern.ops.ctc_beam_search` for one utterance [T, V]; all hypotheses, the best first.

    Graves et al. 2006, Hannun et al. 2014: each prefix has the probability of its alignments that end in blank and of
    those that do not. history: prefixes that differ from the best more tokens back are dropped, once in a while.
    """
    nothing = (-math.inf, -math.inf)
    beam: dict[Prefix, tuple[float, float]] = {(): (0.0, -math.inf)}
    settled = 0
    for number, frame in enumerate(log_probs, 1):
        frame = [x - blank_penalty * (v == blank) for v, x in enumerate(frame)]
        tokens = possible_tokens(frame, token_min_logp, top_tokens)
        for possible in (tokens, set(range(len(frame)))):
            following: dict[Prefix, tuple[float, float]] = defaultdict(lambda: nothing)
            for prefix, (ending_blank, ending_token) in beam.items():
                for v in possible:
                    before = log_add(ending_blank, ending_token)
                    if v == blank:
                        b, t = following[prefix]
                        following[prefix] = log_add(b, before + frame[v]), t
                        continue
                    if prefix and prefix[-1] == v:
                        b, t = following[prefix]
                        following[prefix] = b, log_add(t, ending_token + frame[v])
                        before = ending_blank
                    extended = (*prefix, v)
                    b, t = following[extended]
                    following[extended] = b, log_add(t, before + frame[v])
            totals = {p: log_add(*scores) + context(p, False) for p, scores in following.items()}
            best = max(totals.values())
            # Where pruned tokens are all that the prefixes can go on with, they are not pruned.
            if best > -math.inf:
                break
        kept = [p for p in totals if totals[p] >= best + beam_prune_logp and totals[p] > -math.inf]
        kept = sorted(kept, key=lambda p: -totals[p])[:beam_width]
        if number % SETTLE_FRAMES == 0 and len(kept[0]) - settled > history + history // 2:
            settled = len(kept[0]) - history
            kept = [p for p in kept if p[:settled] == kept[0][:settled]]
        beam = {p: following[p] for p in kept}
    acoustic = {p: log_add(*scores) for p, scores in beam.items()}
    found = [Hypothesis(p, am + context(p, True), am) for p, am in acoustic.items()]
    return sorted((h for h in found if h.score > -math.inf), key=lambda h: -h.score)


def greedy_with_lm(
    log_probs: Sequence[Sequence[float]],
    lm: Any,
    lm_tokens: Sequence[int],
    blank: int = 0,
    alpha: float = 0.5,
    beta: float = 0.0,
) -> tuple[Prefix, float]:
    """Greedy search with a language model of tokens, "shallow fusion while greedy" (compare arXiv 2505.22857).

    It is :func:`ctc_beam_search` with one prefix. At each frame that stays, by a blank or its last token once more, or
    becomes longer by the token v with the largest log p(v) + alpha ln p_lm(v | prefix) + beta, if that is more.

    Args:
        log_probs: [T, V].
        lm, lm_tokens: an asrkern.decoder.NGramLM, and for each token the id of its word.

    Returns:
        The tokens, and their score with that of ``</s>``.
    """
    scale = alpha * math.log(10)
    tokens: Prefix = ()
    state, in_blank, in_token = lm.start(), 0.0, -math.inf
    for frame in log_probs:
        total = log_add(in_blank, in_token)
        stays = total + frame[blank], in_token + frame[tokens[-1]] if tokens else -math.inf
        best = log_add(*stays), None
        for v, log_prob in enumerate(frame):
            if v == blank:
                continue
            score, after = lm.step(state, lm_tokens[v])
            before = in_blank if tokens and v == tokens[-1] else total
            longer = before + log_prob + scale * score + beta
            if longer > best[0]:
                best = longer, (v, after)
        if best[1] is None:
            in_blank, in_token = stays
        else:
            tokens, state, in_blank, in_token = (*tokens, best[1][0]), best[1][1], -math.inf, best[0]
    return tokens, log_add(in_blank, in_token) + scale * lm.step(state, lm.eos)[0]


def join_texts(found: Sequence[Hypothesis], text: Callable[[Prefix], str]) -> list[Hypothesis]:
    """The texts that hypotheses, the best first, are, the likeliest first: of each its best, with the scores of all."""
    by_text: dict[str, list[Hypothesis]] = defaultdict(list)
    for h in found:
        by_text[text(h.tokens)].append(h)
    joined = [
        Hypothesis(same[0].tokens, log_add(*(h.score for h in same)), log_add(*(h.am_score for h in same)))
        for same in by_text.values()
    ]
    return sorted(joined, key=lambda h: -h.score)


def collapse(path: Sequence[int], blank: int) -> Prefix:
    """The tokens of an alignment: repeats merged, blanks dropped."""
    return tuple(v for v, _ in itertools.groupby(path) if v != blank)


def alignments(frames: int, vocabulary: int) -> Iterator[tuple[int, ...]]:
    """All V^T sequences of labels."""
    return itertools.product(range(vocabulary), repeat=frames)


def enumerate_prefixes(log_probs: Sequence[Sequence[float]], blank: int = 0) -> dict[Prefix, float]:
    """Every token sequence's exact log-probability, by summing over all V^T alignments."""
    found: dict[Prefix, list[float]] = defaultdict(list)
    for path in alignments(len(log_probs), len(log_probs[0]) if log_probs else 1):
        found[collapse(path, blank)].append(sum(frame[v] for frame, v in zip(log_probs, path)))
    return {tokens: log_add(*scores) for tokens, scores in found.items()}
