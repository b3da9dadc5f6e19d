"""ARPA files: of estimated models, written by hand, and IRSTLM's; damaged as text, compressed ones as bytes, too."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrkern.decoder import NGramLM
from tests.fuzz._language_models import assert_scores_are_sane, damage, sentences

REFUSALS = (ValueError,)

TEXTS = ["the cat sat", "the fat cat", "a cat sat on the fat cat", "on a cat", ""]
BY_HAND = """# a comment\r
\\data\\\r
ngram 1=7\r
ngram 2 = 4
ngram 3=2

\\1-grams:
-inf\t<s>\t-0.3
-1.5\t</s>
-0.8 the -0.2
-0.9\tcat\t0.1
-1e0\tsat
-0.9\tcat\t-0.4
-2\ta\t-0.7

\\2-grams:
-0.4\t<s> the\t-0.1
-0.5\tthe cat\t0
-0.6\tcat sat
-0.35\ta a\t-0.25
\\3-grams:
-0.2\tcat the sat
-0.15\tthe cat sat
\\end\\
"""


class Seed(NamedTuple):
    content: bytes
    compressed: bytes
    texts: list[str]
    scores: list[float]


def prepare(folder: Path) -> list[Seed]:
    path = folder / "seed.arpa"
    interpolated = BY_HAND.replace("\n-0.", "\n-1.").replace("cat\t0.1", "cat\t-0.1")
    contents = [BY_HAND.encode(), b"iARPA\n" + interpolated.encode()]
    for order in (1, 2, 3, 5):
        NGramLM.estimate(TEXTS, order, discount_fallback=True).to_arpa(path)
        contents.append(path.read_bytes())
    seeds = []
    for content in contents:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lm = NGramLM.from_arpa(path)
        texts = sentences(np.random.default_rng(0))
        seeds.append(Seed(content, gzip.compress(content, mtime=0), texts, lm.score_batch(texts).tolist()))
    return seeds


def one(rng: np.random.Generator, folder: Path, prepared: list[Seed]) -> None:
    seed, other = (prepared[i] for i in rng.integers(len(prepared), size=2))
    kind = rng.random()
    if kind < 0.05:
        content = seed.content if rng.random() < 0.5 else seed.compressed
    elif kind < 0.1:
        content = rng.bytes(int(rng.integers(300)))
    elif kind < 0.2:
        content = damage(rng, seed.compressed, other.compressed, text=False)
    elif kind < 0.25:
        content = gzip.compress(damage(rng, seed.content, other.content, text=True), 1)
    else:
        content = damage(rng, seed.content, other.content, text=True)
    path = folder / "model.arpa"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lm = NGramLM.open(path)
    if kind < 0.05:
        assert lm.score_batch(seed.texts).tolist() == seed.scores
    assert_scores_are_sane(lm, sentences(rng))
