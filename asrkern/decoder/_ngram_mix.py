"""Static linear mixtures of n-gram models, and their weights by expectation maximisation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from asrkern import _decoder
from asrkern.decoder._backoff_weights import LEAST_LOG10, NGrams, distinct, normalised, with_contexts

_MARKS = ("<unk>", "<s>", "</s>")
# Of expectation maximisation: it ends when no weight changes by more, or after so many rounds.
_PRECISION, _MOST_ROUNDS = 1e-6, 10_000


class Part(NamedTuple):
    """A model of a mixture: what answers, its words, its n-grams."""

    model: _decoder.NGramModel
    words: list[str]
    orders: list[NGrams]


def mix(parts: Sequence[Part], weights: Sequence[float]) -> tuple[bytes, list[NGrams]]:
    """(words, n-grams) of the mixture; see :meth:`asrkern.decoder.NGramLM.interpolate`. Words 1 and 2 are its marks."""
    words = list(dict.fromkeys([*_MARKS, *(word for part in parts for word in part.words)]))
    id_of = {word: index for index, word in enumerate(words)}
    # For each part: its words' numbers in the mixture, and the other way round, −1 for words that it lacks.
    to_mixture = [np.asarray([id_of[word] for word in part.words], np.int32) for part in parts]
    to_part = [np.full(len(words), -1, np.int32) for _ in parts]
    for there, back in zip(to_mixture, to_part):
        back[there] = np.arange(len(there), dtype=np.int32)
    listed = [with_contexts(part.model, part.orders) for part in parts]
    orders = []
    for n in range(1, max(map(len, listed)) + 1):
        all_words = [
            numbers[orders_of[n - 1].words]
            for numbers, orders_of in zip(to_mixture, listed)
            if len(orders_of) >= n
        ]
        ngrams = (
            distinct(np.concatenate(all_words)) if n > 1 else np.arange(len(words), dtype=np.int32)[:, None]
        )
        prob = np.zeros(len(ngrams))
        for part, numbers, weight in zip(parts, to_part, weights):
            prob += weight * 10.0 ** part.model.score_ngrams(numbers[ngrams])[:, -1].astype(np.float64)
        with np.errstate(divide="ignore"):
            log_probs = np.clip(np.log10(prob), LEAST_LOG10, 0.0).astype(np.float32)
        orders.append(NGrams(ngrams, log_probs, np.zeros(len(ngrams), np.float32)))
    strings = "".join(word + "\n" for word in words).encode(errors="surrogateescape")
    return strings, normalised(strings, orders)


def word_probs(models: Sequence[_decoder.NGramModel], sentences: Iterable[str]) -> np.ndarray:
    """[models, words] probabilities of the words that at least one model knows, ``</s>`` among them; none if all that
    they know is ``</s>``."""
    columns: list[list[float]] = [[] for _ in models]
    count = 0
    for sentence in sentences:
        count += 1
        for column, model in zip(columns, models):
            log_probs, _, ids = model.score_words(sentence, True, True)
            column += [log_prob if word else -np.inf for log_prob, word in zip(log_probs, ids)]
    probs = 10.0 ** np.asarray(columns, np.float64)
    known = probs[:, probs.any(0)]
    return known if known.shape[1] > count else known[:, :0]


def best_weights(probs: np.ndarray) -> np.ndarray:
    """The weights, which sum to 1, that make a text likeliest. probs: [models, words]."""
    weights = np.full(len(probs), 1.0 / len(probs))
    for _ in range(_MOST_ROUNDS):
        joint = weights[:, None] * probs
        updated = (joint / joint.sum(0)).mean(1)
        converged = np.abs(updated - weights).max() < _PRECISION
        weights = updated
        if converged:
            break
    return weights
