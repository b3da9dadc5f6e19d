"""KenLM's binary files of all types, of a writer of our own: with and without words, damaged as bytes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrkern.decoder import NGramLM
from asrkern.decoder._lm_info import describe
from asrkern.reference import ngram as reference
from tests.decoder.kenlm_writer import kenlm_binary, quantise, quantised_model, trie_binary
from tests.fuzz._language_models import TEXTS, assert_scores_are_sane, damage, sentences

REFUSALS = (ValueError,)


class Seed(NamedTuple):
    content: bytes
    texts: list[str]
    scores: list[float]


def prepare(folder: Path) -> list[Seed]:
    seeds, path, texts = [], folder / "seed.bin", sentences(np.random.default_rng(0))

    def add(content: bytes, model: reference.Model) -> None:
        path.write_bytes(content)
        scores = NGramLM.from_kenlm_binary(path).score_batch(texts).tolist()
        expected = [sum(reference.score(model, text.split())) for text in texts]
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        seeds.append(Seed(content, texts, scores))

    for order in (2, 3, 4):
        model = reference.kneser_ney([text.split() for text in TEXTS], order, (0,) * order, (0.5, 1, 1.5))
        for strings, multiplier in ((True, 1.5), (False, 1.1), (True, 4.0)):
            add(kenlm_binary(model, strings=strings, multiplier=multiplier), model)
        add(kenlm_binary(model, kind=1), model)
        for bits in (None, (3, 2), (8, 9)):
            codes = quantise(model, bits) if bits else None
            for pointer_limit in (None, 0, 22):
                content = trie_binary(
                    model, strings=pointer_limit != 0, codes=codes, pointer_limit=pointer_limit
                )
                add(content, quantised_model(model, codes) if codes else model)
    return seeds


def ask_unchecked(path: Path, texts: list[str], converted: NGramLM | None) -> None:
    """Asks the file's trie, if there is one, where it lies. converted: the same; None: it was refused."""
    try:
        lm = NGramLM.open(path, mapped=True, verify=False)
    except REFUSALS:
        assert converted is None or describe(path)["kind"].startswith("KenLM's probing")
        return
    assert_scores_are_sane(lm, texts)
    if converted:
        assert [lm.full_scores(text) for text in texts] == [converted.full_scores(text) for text in texts]
        assert lm.score_batch(texts).tolist() == converted.score_batch(texts).tolist()
    else:
        try:
            NGramLM.open(path, mapped=True, verify=True)
        except REFUSALS:
            return
        raise AssertionError("a file was refused, but not by all checks of the same trie where it lies")


def one(rng: np.random.Generator, folder: Path, prepared: list[Seed]) -> None:
    seed, other = (prepared[i] for i in rng.integers(len(prepared), size=2))
    kind = rng.random()
    content = seed.content
    if kind >= 0.05:
        content = damage(rng, content, other.content, text=False)
    if kind >= 0.8:  # the header, in which sizes are
        content = damage(rng, content[:150], other.content[:150], text=False) + content[150:]
    path = folder / "model.bin"
    path.write_bytes(content)
    texts = [*seed.texts, *sentences(rng)]
    try:
        lm = NGramLM.open(path)
    except REFUSALS:
        ask_unchecked(path, texts, None)
        raise
    if kind < 0.05:
        assert lm.score_batch(seed.texts).tolist() == seed.scores
    assert_scores_are_sane(lm, texts)
    ask_unchecked(path, texts, lm)
    describe(path)
    if rng.random() < 0.3:
        lm = NGramLM.open(path, keep_ngrams=True)
        lm.to_arpa(folder / "model.arpa")
        again = NGramLM.open(folder / "model.arpa")
        assert_scores_are_sane(again, sentences(rng))
        if kind < 0.05:
            np.testing.assert_allclose(again.score_batch(seed.texts), seed.scores, atol=1e-5)
