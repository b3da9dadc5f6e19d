"""Stand-ins for corpora that the repository does not have: text, and the output of a CTC model."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import torch
from torch import Tensor

_CONSONANTS, _VOWELS = "bcdfghjklmnprstvw", "aeiou"


def make_sentences(count: int, seed: int = 0) -> list[str]:
    """Sentences of 6 to 20 of 6,000 words, which are as unevenly frequent as those of a language (Zipf)."""
    draw = random.Random(seed)
    syllables = ["".join(pair) for pair in itertools.product(_CONSONANTS, _VOWELS)]
    words = list(dict.fromkeys("".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(8000)))[
        :6000
    ]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    return [" ".join(draw.choices(words, cum_weights=weights, k=draw.randint(6, 20))) for _ in range(count)]


def make_log_probs(text: str, labels: Sequence[str], seed: int = 0) -> Tensor:
    """What a model that is sure says of a text: [T, V] float32; ``labels`` have the blank as ""."""
    draw = random.Random(seed)
    path = []
    for character in text:
        path += [labels.index(character), *[labels.index("")] * draw.randint(1, 3)]
    noise = torch.randn(len(path), len(labels), generator=torch.Generator().manual_seed(seed))
    noise[torch.arange(len(path)), torch.tensor(path)] += 13
    return noise.log_softmax(-1)
