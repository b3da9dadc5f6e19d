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
    lower: dict[tuple[str, ...], float] = {(): 1 / (len(vocabulary) - 1)}
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


def _by_context(model: Model, order: int) -> dict[tuple[str, ...], list[str]]:
    """The words of the n-grams of an order, by the words before."""
    found: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for gram in model:
        if len(gram) == order:
            found[gram[:-1]].append(gram[-1])
    return found


def _left_over(log_probs: Sequence[float]) -> float:
    rest = 1 - sum(10**p for p in log_probs)
    return 0.0 if -3e-6 < rest < 0 else rest


def normalise(model: Model) -> Model:
    """With the weights with which each context's probabilities sum to 1, from short contexts to long ones.

    bow(h) = (1 − Σ p(w | h)) / (1 − Σ p(w | h')), over the words w with an n-gram of their own after h.
    """
    model = {gram: (p, 0.0) for gram, (p, _) in model.items()}
    for order in range(2, max(map(len, model)) + 1):
        for h, words in _by_context(model, order).items():
            numerator = _left_over([model[(*h, w)][0] for w in words])
            denominator = _left_over([log_prob(model, h[1:], w) for w in words])
            weight = _log10(numerator) - _log10(denominator) if numerator > 0 and denominator > 0 else -99.0
            if numerator <= 0 and denominator <= 3e-6:
                weight = 0.0
            model[h] = (model[h][0], weight)
    return model


def prune(model: Model, threshold: float, min_order: int = 2) -> Model:
    """Without n-grams whose removal alone raises the perplexity by less than a part of ``threshold`` (Stolcke 1998).

    ΔH = −P(h) (p(w | h) (log p(w | h') + log bow'(h) − log p(w | h)) + (1 − Σ p(v | h)) (log bow'(h) − log bow(h))),
    and the perplexity grows by 10^ΔH − 1. P(h) is the product of its words' probabilities, with that of ``</s>`` for
    ``<s>``. N-grams that begin longer ones stay. The model has all contexts, and probabilities that sum to 1.
    """
    kept = dict(model)
    for order in range(max(map(len, model)), max(min_order, 2) - 1, -1):
        begun = {gram[:-1] for gram in kept if len(gram) == order + 1}
        for h, words in _by_context(model, order).items():
            numerator = _left_over([model[(*h, w)][0] for w in words])
            denominator = _left_over([log_prob(model, h[1:], w) for w in words])
            history = sum(
                log_prob(model, h[:i], "</s>" if i == 0 and word == "<s>" else word)
                for i, word in enumerate(h)
            )
            for w in words:
                p, lower = model[(*h, w)][0], log_prob(model, h[1:], w)
                weight = math.log10(numerator + 10**p) - math.log10(denominator + 10**lower)
                entropy = 10**p * (lower + weight - p) + numerator * (weight - model[h][1])
                if 10 ** (-(10**history) * entropy) - 1 < threshold and (*h, w) not in begun:
                    del kept[(*h, w)]
    return normalise(kept)


def mix(models: Sequence[Model], weights: Sequence[float]) -> Model:
    """A linear mixture: the n-grams of all, p = Σ weight · p of each. Words that a model lacks have p = 0 in it."""

    def prob(model: Model, gram: tuple[str, ...]) -> float:
        known = [(word,) in model for word in gram]
        begin = max((i + 1 for i, there in enumerate(known[:-1]) if not there), default=0)
        return 10 ** log_prob(model, gram[begin:-1], gram[-1]) if known[-1] else 0.0

    grams = dict.fromkeys(gram for model in models for gram in model)
    return normalise(
        {gram: (_log10(sum(w * prob(m, gram) for m, w in zip(models, weights))), 0.0) for gram in grams}
    )
