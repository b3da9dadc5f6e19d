"""Models of damaged ARPA files, made smaller and mixed: whatever the numbers of a file are, the results are models."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from asrkern.decoder import NGramLM
from tests.fuzz import arpa
from tests.fuzz._language_models import assert_scores_are_sane, damage, sentences

REFUSALS = (ValueError,)


def prepare(folder: Path) -> list[arpa.Seed]:
    return arpa.prepare(folder)


def one(rng: np.random.Generator, folder: Path, prepared: list[arpa.Seed]) -> None:
    models = []
    for name in ("a.arpa", "b.arpa"):
        seed, other = (prepared[i] for i in rng.integers(len(prepared), size=2))
        whole = rng.random() < 0.4
        (folder / name).write_bytes(
            seed.content if whole else damage(rng, seed.content, other.content, text=True)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models.append(NGramLM.open(folder / name, keep_ngrams=True))
    texts = sentences(rng)
    pruned = models[0].prune(float(rng.choice([0, 1e-9, 1e-3, 1e3])), min_order=int(rng.integers(2, 5)))
    assert_scores_are_sane(pruned, texts)
    weights = NGramLM.best_weights(models, texts)
    assert abs(sum(weights) - 1) < 1e-9 and min(weights) >= 0
    mixed = NGramLM.interpolate(models, weights)
    assert_scores_are_sane(mixed, texts)
    mixed.to_arpa(folder / "mixed.arpa")
    again = NGramLM.open(folder / "mixed.arpa")
    assert np.allclose(again.score_batch(texts), mixed.score_batch(texts), rtol=1e-5, atol=1e-4)
