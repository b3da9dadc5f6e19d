"""Back-off n-gram models in plain Python: reading, scoring, estimating."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

# n-gram → (log10 probability, log10 back-off weight)
Model = dict[tuple[str, ...], tuple[float, float]]


def read_arpa(path: str | os.PathLike[str]) -> Model:
    """An ARPA file that is without faults."""
    model, order = {}, 0
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.endswith("-grams:"):
            order = int(line[1:-7])
        elif order and line and line[0] != "\\":
            log_prob, *words = line.split()
            backoff = words.pop() if len(words) > order else 0
            model[tuple(words)] = float(log_prob), float(backoff)
    return model


def log_prob(model: Model, context: tuple[str, ...], word: str) -> float:
    """log10 P(word | context): of the longest n-gram there is, with the weights of the contexts that have none."""
    ngram = (*context, word)
    if ngram in model:
        return model[ngram][0]
    if not context:
        return model.get(("<unk>",), (-100.0, 0.0))[0]
    return model.get(context, (0.0, 0.0))[1] + log_prob(model, context[1:], word)


def score(model: Model, sentence: Sequence[str], bos: bool = True, eos: bool = True) -> list[float]:
    """log10 probability of each word, and of ``</s>`` if ``eos``."""
    order = max(map(len, model))
    words = [word if (word,) in model else "<unk>" for word in sentence] + ["</s>"] * eos
    history = ("<s>",) * bos
    scores = []
    for word in words:
        history = history[max(0, len(history) - order + 1) :]
        scores.append(log_prob(model, history, word))
        history = (*history, word)
    return scores


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -99.0


def kneser_ney(
    sentences: Sequence[Sequence[str]],
    order: int,
    prune: Sequence[int],
    fallback: tuple[float, float, float] | None = None,
) -> Model:
    """Interpolated modified Kneser-Ney (Chen & Goodman 1998) with the choices of KenLM's lmplz.

    c(g) is how often an n-gram occurs, a(g) how many words come before it, or c(g) in the highest order and after
    ``<s>``. With D of Chen & Goodman's equation 26, counted from a(g),

        P(w | h) = (a(hw) − D(a(hw))) / a(h·) + γ(h) P(w | h'),  γ(h) = Σ_w D(a(hw)) / a(h·),

    where pruned n-grams (c ≤ prune) give all of a(hw) to γ, and P of no context at all is uniform over the words
    without ``<s>``. prune has a threshold for each order.
    """
    padded = [("<s>", *sentence, "</s>") for sentence in sentences]
    counts: list[Counter[tuple[str, ...]]] = [
        Counter(s[i : i + n] for s in padded for i in range(len(s) - n + 1)) for n in range(1, order + 1)
    ]
    vocabulary = ["<unk>", "<s>", "</s>", *dict.fromkeys(word for s in sentences for word in s)]
    rank = {word: i for i, word in enumerate(vocabulary)}
    counts[0] = Counter({(word,): counts[0][word,] if word != "<s>" else 0 for word in vocabulary})
    model: Model = {}
    lower = {(): 1 / (len(vocabulary) - 1)}
    last: tuple[str, ...] = ()
    for n, (count, threshold) in enumerate(zip(counts, prune), 1):
        adjusted: dict[tuple[str, ...], int] = count
        if n < order:
            before = Counter(gram[1:] for gram in counts[n])
            adjusted = {gram: count[gram] if gram[0] == "<s>" else before[gram] for gram in count}
        # lmplz takes the last n-gram, in order of its words from the last to the first, by its count.
        last = max(
            (gram for gram in count if gram[1:] == last), key=lambda gram: rank[gram[0]], default=("",)
        )
        counted = dict(adjusted)
        if last in counted:
            counted[last] = count[last]
        discounts = _discounts(Counter(counted.values())) or fallback
        if discounts is None:
            raise ValueError(f"no discounts of order {n}")
        total: defaultdict[tuple[str, ...], int] = defaultdict(int)
        gamma: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for gram, a in adjusted.items():
            total[gram[:-1]] += a
            kept = threshold == 0 or count[gram] > threshold
            gamma[gram[:-1]] += discounts[min(a, 3) - 1] * (a > 0) if kept else a
        probs = {}
        for gram, a in adjusted.items():
            discount = discounts[min(a, 3) - 1] if a else 0
            h = gram[:-1]
            if threshold == 0 or count[gram] > threshold:
                probs[gram] = (a - discount) / total[h] + gamma[h] / total[h] * lower[gram[1:]]
        model.update({gram: (_log10(p), 0.0) for gram, p in probs.items()})
        if n == 1:
            model["<s>",] = (0.0, 0.0)
        else:
            for h in total:
                if h in model:
                    model[h] = (model[h][0], _log10(gamma[h] / total[h]))
        lower = probs
    return model


def _discounts(t: Counter[int]) -> tuple[float, ...] | None:
    if not (t[1] and t[2] and t[3]):
        return None
    y = t[1] / (t[1] + 2 * t[2])
    discounts = tuple(k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))
    return discounts if all(0 <= d <= k for k, d in enumerate(discounts, 1)) else None
