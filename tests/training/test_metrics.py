"""Error rates by their definition."""

from __future__ import annotations

import math
import random

import pytest

from asrkern.training.metrics import ErrorCounts, constant_answer, error_of, is_better
from tests.metrics import edit_distance

PAIRS = [("THE CAT SAT", "THE CAT SAT"), ("A CAT", "THE CAT"), ("", "ON IT"), ("B C", "BC")]


def test_metrics_against_plain_edit_distances() -> None:
    counts = ErrorCounts().add_all(*zip(*PAIRS))
    words = [(h.split(), r.split()) for h, r in PAIRS]
    letters = [(h.replace(" ", ""), r.replace(" ", "")) for h, r in PAIRS]

    def rate(pairs: list) -> float:
        return sum(edit_distance(h, r) for h, r in pairs) / sum(len(r) for _, r in pairs)

    assert counts.value("wer") == rate(words)
    assert counts.value("cer") == rate(PAIRS)
    assert counts.value("crr") == pytest.approx(100 - 100 * rate(letters))
    assert counts.value("distance") == sum(edit_distance(h, r) for h, r in PAIRS) / 4
    assert counts.value("accuracy") == 0.25
    assert ErrorCounts(*counts.sums()) == counts
    assert math.isnan(ErrorCounts().value("cer"))


def test_random_texts() -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("AB ", k=draw.randint(0, 12))) for _ in range(60)]
    counts = ErrorCounts().add_all(texts[:30], texts[30:])
    assert counts.character_edits == sum(map(edit_distance, texts[:30], texts[30:]))


def test_better() -> None:
    assert is_better("wer", 0.1, 0.2)
    assert not is_better("wer", 0.2, 0.2)
    assert is_better("crr", 90, 80)
    assert is_better("accuracy", 0.5, math.nan)
    assert not is_better("wer", math.nan, 0.5)
    assert (error_of("crr", 90), error_of("cer", 0.3)) == (10, 0.3)


def test_the_best_constant_answer() -> None:
    """The majority's class; the text in the middle of the others."""
    assert constant_answer(["a", "b", "b"], ["a", "a", "b", "c"], "accuracy") == ("b", 0.25)
    assert constant_answer(["AAB", "AB", "AB", "ABB"], ["AB", "ABC"], "cer") == ("AB", 0.2)
