"""Pruning by relative entropy (Stolcke 1998), with SRILM's formula."""

from __future__ import annotations

import numpy as np

from asrkern import _decoder
from asrkern.decoder._backoff_weights import NGrams, distinct, find, left_over, normalised, with_contexts


def prune(
    model: _decoder.NGramModel,
    strings: bytes,
    orders: list[NGrams],
    bos: int,
    eos: int,
    threshold: float,
    min_order: int,
) -> list[NGrams]:
    """See :meth:`asrkern.decoder.NGramLM.prune`. model: of the same n-grams."""
    orders = with_contexts(model, orders)
    for n in range(len(orders), max(min_order, 2) - 1, -1):
        ngrams = orders[n - 1]
        if not len(ngrams.words):
            continue
        spared = ngrams.words[:0]
        if n < len(orders) and len(orders[n].words):
            spared = distinct(orders[n].words[:, :-1])
        change = _perplexity_changes(model, ngrams, orders[n - 2], bos, eos)
        kept = ~(change < threshold) | (find(ngrams.words, spared) >= 0)
        orders[n - 1] = NGrams(*(column[kept] for column in ngrams))
    while len(orders) > 1 and not len(orders[-1].words):
        orders.pop()
    return normalised(strings, orders)


def _perplexity_changes(
    model: _decoder.NGramModel, ngrams: NGrams, shorter: NGrams, bos: int, eos: int
) -> np.ndarray:
    """By what part the perplexity of the model's own text grows without each n-gram alone; inf where it must stay.

    ΔH = −P(h) (p(w | h) Δ + (1 − Σ p(v | h)) (log bow'(h) − log bow(h))), Δ = log p(w | h') + log bow'(h) −
    log p(w | h), with the logarithms to base 10 as in ARPA files; the change is 10^ΔH − 1.
    """
    context = find(ngrams.words[:, :-1], shorter.words)
    lower = model.score_ngrams(ngrams.words[:, 1:])[:, -1].astype(np.float64)
    log_prob = ngrams.log_probs.astype(np.float64)
    numerator = left_over(context, len(shorter.words), log_prob)
    denominator = left_over(context, len(shorter.words), lower)
    # What SRILM cannot compute a weight of: it leaves such contexts as they are.
    sound = (numerator >= 0) & ((denominator > 0) | (numerator == 0))
    # In the others there may be logarithms of 0 and less.
    with np.errstate(all="ignore"):
        numerator = np.maximum(numerator, 0.0)[context]
        denominator = np.maximum(denominator, 0.0)[context]
        new_backoff = np.log10(numerator + 10.0**log_prob) - np.log10(denominator + 10.0**lower)
        difference = lower + new_backoff - log_prob
        old_backoff = shorter.backoffs.astype(np.float64)[context]
        entropy = 10.0**log_prob * difference + numerator * (new_backoff - old_backoff)
        change = 10.0 ** (-(10.0 ** _history(model, shorter.words, bos, eos)[context]) * entropy) - 1.0
    return np.where(sound[context], change, np.inf)


def _history(model: _decoder.NGramModel, contexts: np.ndarray, bos: int, eos: int) -> np.ndarray:
    """log10 probability of contexts. That of ``<s>`` is how often sentences end."""
    scores = model.score_ngrams(contexts).astype(np.float64)
    end = model.score_ngrams(np.asarray([[eos]], np.int32))[0, 0]
    scores[contexts[:, 0] == bos, 0] = end
    return scores.sum(1)
