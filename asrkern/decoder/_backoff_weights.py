"""Lists of n-grams whose back-off weights make every distribution sum to 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asrkern import _decoder
from asrkern.decoder._ngram_estimate import BOS, EOS

# How far below 0 rounding can leave what probabilities leave of 1; SRILM's number.
_ROUNDING = 3e-6
# The log10 of probability 0 in ARPA files.
LEAST_LOG10 = -99.0


class NGrams(NamedTuple):
    """The n-grams of one order: words [count, order] int32, log10 probabilities and log10 back-off weights [count]."""

    words: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray


def keys(words: np.ndarray) -> np.ndarray:
    """A number for each n-gram; different ones for different n-grams, but for the chance that the tables take, too."""
    key = words[:, -1].astype(np.uint64)
    for column in range(words.shape[1] - 2, -1, -1):
        key = (key * np.uint64(8978948897894561157)) ^ (
            (words[:, column].astype(np.uint64) + np.uint64(1)) * np.uint64(17894857484156487943)
        )
    return key


def find(asked: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Where each of the n-grams ``asked`` is among ``words``; −1 if it is not."""
    sought, there = keys(asked), keys(words)
    order = np.argsort(there, kind="stable")
    at = np.minimum(np.searchsorted(there[order], sought), max(len(there) - 1, 0))
    if not len(there):
        return np.full(len(asked), -1)
    return np.where(there[order][at] == sought, order[at], -1)


def distinct(words: np.ndarray) -> np.ndarray:
    """Each n-gram once, in the order of their first occurrence."""
    return words[np.sort(np.unique(keys(words), return_index=True)[1])]


def model_of(strings: bytes, orders: list[NGrams], bos: int = BOS, eos: int = EOS) -> _decoder.NGramModel:
    """A model that can be asked for scores."""
    tables = _decoder.make_tables(strings, [tuple(ngrams) for ngrams in orders])
    return _decoder.NGramModel(
        tables["unigrams"], tables["ngrams"], None, tables["words"], len(orders), bos, eos, False, "▁"
    )


def with_contexts(model: _decoder.NGramModel, orders: list[NGrams]) -> list[NGrams]:
    """With the n-grams that longer ones begin with and that pruning has left out: a weight needs a place.

    They have the probability of backing off, so no score changes.
    """
    orders = list(orders)
    for n in range(len(orders), 2, -1):
        contexts = distinct(orders[n - 1].words[:, :-1])
        missing = contexts[find(contexts, orders[n - 2].words) < 0]
        if len(missing):
            words, log_probs, backoffs = orders[n - 2]
            added = model.score_ngrams(missing)[:, -1]
            orders[n - 2] = NGrams(
                np.concatenate([words, missing]),
                np.concatenate([log_probs, added]),
                np.concatenate([backoffs, np.zeros(len(missing), np.float32)]),
            )
    return orders


def left_over(contexts: np.ndarray, count: int, log_probs: np.ndarray) -> np.ndarray:
    """What the n-grams of each of ``count`` contexts leave of 1. contexts: of each n-gram."""
    rest = 1.0 - np.bincount(contexts, 10.0 ** log_probs.astype(np.float64), minlength=count)
    return np.where((rest < 0) & (rest > -_ROUNDING), 0.0, rest)


def normalised(strings: bytes, orders: list[NGrams]) -> list[NGrams]:
    """With back-off weights that make each context's probabilities sum to 1, as SRILM computes them.

    bow(h) = (1 − Σ p(w | h)) / (1 − Σ p(w | h')), over the words w with an n-gram of their own after h. All n-grams
    that longer ones begin with are there.
    """
    orders = list(orders)
    for n in range(2, len(orders) + 1):
        words, log_probs, backoffs = orders[n - 1]
        shorter = orders[n - 2]
        context = find(words[:, :-1], shorter.words)
        lower = model_of(strings, orders[: n - 1]).score_ngrams(words[:, 1:])[:, -1]
        numerator = left_over(context, len(shorter.words), log_probs)
        denominator = left_over(context, len(shorter.words), lower)
        # Where backing off has no probability to give, the n-grams share what there is.
        exhausted = (denominator == 0) & (numerator > 0)
        scale = np.zeros(len(shorter.words))
        scale[exhausted] = -np.log10(1.0 - numerator[exhausted])
        log_probs = np.minimum(log_probs + scale[context], 0.0).astype(np.float32)
        possible = (numerator > 0) & (denominator > 0)
        weights = np.full(len(shorter.words), LEAST_LOG10)
        weights[possible] = np.log10(numerator[possible]) - np.log10(denominator[possible])
        weights[exhausted | ((numerator == 0) & (denominator <= _ROUNDING))] = 0.0
        weights[np.bincount(context, minlength=len(weights)) == 0] = 0.0
        orders[n - 1] = NGrams(words, log_probs, backoffs)
        orders[n - 2] = shorter._replace(backoffs=weights.astype(np.float32))
    orders[-1] = orders[-1]._replace(backoffs=np.zeros(len(orders[-1].words), np.float32))
    return orders
