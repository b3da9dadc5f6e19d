"""Scorer packages of DeepSpeech and Coqui STT, of a writer of our own, damaged as bytes, mostly behind the language model."""

from __future__ import annotations

import string
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrkern.decoder import CTCBeamDecoder
from tests.decoder.kenlm_writer import SMALL, kenlm_binary, quantise, trie_binary
from tests.decoder.scorer_writer import automaton, package
from tests.fuzz._language_models import damage

REFUSALS = (ValueError,)
ALPHABET = [" ", *string.ascii_lowercase, "'"]
LABELS = [*ALPHABET, ""]


class Seed(NamedTuple):
    content: bytes
    behind_lm: int


def prepare(folder: Path) -> list[Seed]:
    words = [ngram[0] for ngram in SMALL if len(ngram) == 1 and not ngram[0].startswith("<")]
    states, seeds = automaton(words, ALPHABET), []
    for lm in (
        kenlm_binary(SMALL, strings=False),
        trie_binary(SMALL, strings=False),
        trie_binary(SMALL, strings=False, codes=quantise(SMALL, (4, 4)), pointer_limit=8),
    ):
        for options in ({}, {"fst_version": 2}, {"kind": "vector"}):
            seeds.append(Seed(package(lm, states, **options), len(lm)))
    return seeds


def one(rng: np.random.Generator, folder: Path, prepared: list[Seed]) -> None:
    seed, other = (prepared[i] for i in rng.integers(len(prepared), size=2))
    kind = rng.random()
    kept = 0 if kind < 0.2 else seed.behind_lm if kind < 0.6 else min(len(seed.content), seed.behind_lm + 90)
    content = seed.content
    if kind >= 0.05:
        content = content[:kept] + damage(rng, content[kept:], other.content[other.behind_lm :], text=False)
    path = folder / "model.scorer"
    path.write_bytes(content)
    decoder = CTCBeamDecoder.from_scorer(path, LABELS, beam_width=4)
    scores = rng.standard_normal((12, len(LABELS))).astype(np.float32)
    scores -= np.log(np.exp(scores).sum(1, keepdims=True))
    for hypothesis in decoder.decode(scores):
        assert np.isfinite(hypothesis.score) or abs(decoder.context.alpha) > 1e30, hypothesis
