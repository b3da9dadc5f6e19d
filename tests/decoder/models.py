"""Small language models and random CTC outputs for tests of decoders."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from asrkern.decoder import CTCBeamDecoder, NGramLM

LN10 = math.log(10)


def random_log_probs(*shape: int, sharpness: float = 2.0) -> Tensor:
    """Log-probabilities [..., V] of normally distributed logits."""
    return (torch.randn(*shape) * sharpness).log_softmax(-1)


def small_lm(words: list[str], order: int = 3, unit: str = "word", sentences: int = 60) -> NGramLM:
    """Estimated from random sentences of these words, the earlier the more frequent."""
    chance = random.Random(0)
    weights = [1 / (i + 1) for i in range(len(words))]
    text = [
        (" " if unit == "word" else "").join(chance.choices(words, weights, k=chance.randint(1, 6)))
        for _ in range(sentences)
    ]
    return NGramLM.estimate(text, order, unit=unit, discount_fallback=True)


class Scorer:
    """A language model as the plain functions that asrkern.reference takes, times alpha and in nats."""

    def __init__(self, lm: NGramLM, alpha: float) -> None:
        self.lm, self.scale = lm, alpha * LN10

    def _walk(self, words: list[str]):
        state, total = self.lm.start(), 0.0
        for word in words:
            log_prob, state = self.lm.step(state, word)
            total += log_prob
        return state, total

    def log_prob(self, words: list[str]) -> float:
        return self.scale * self._walk(words)[1]

    def end_log_prob(self, words: list[str]) -> float:
        return self.scale * self.lm.step(self._walk(words)[0], "</s>")[0]

    def unigram(self, word: str) -> float:
        return self.scale * self.lm.step(self.lm.start(bos=False), word)[0]

    def functions(self) -> dict:
        return {"log_prob": self.log_prob, "end_log_prob": self.end_log_prob, "unigram": self.unigram}


class PrefixDecoder(CTCBeamDecoder):
    """A decoder whose results are prefixes, also where texts are the same."""

    _joins_texts = False
