"""Errors of known transcripts: metrics, the worst, confusions, classes."""

from __future__ import annotations

import json
import math

import pytest

from asrkern.training.evaluation import Evaluation, Result
from tests.metrics import edit_distance

PAIRS = [
    ("THE CAT SAT", "THE CAT SAT"),
    ("THE CAT SAT", "A CAT SAT DOWN"),
    ("A HAT", "THE HAT"),
    ("", "OH"),
    ("GO ON", ""),
]


def evaluation(pairs: list[tuple[str, str]], metric: str = "wer", **changes: object) -> Evaluation:
    results = [Result(f"u{i}", reference, said, 2.0) for i, (reference, said) in enumerate(pairs)]
    options = {"task": "ctc", "has_spaces": True, "metric": metric, "results": results, **changes}
    return Evaluation(**options)


def test_metrics() -> None:
    found = evaluation(PAIRS, processing_seconds=0.5)
    words = sum(edit_distance(said.split(), meant.split()) for meant, said in PAIRS)
    characters = sum(edit_distance(said, meant) for meant, said in PAIRS)
    length = sum(len(meant) for meant, _ in PAIRS)
    assert found.metrics() == {
        "wer": words / 10,
        "cer": characters / length,
        "crr": found.counts.value("crr"),
        "distance": characters / 5,
        "rtf": 0.05,
    }
    assert "wer" not in evaluation(PAIRS, has_spaces=False).metrics()


def test_the_worst_come_first() -> None:
    """All of nothing, all of two words; then shares of words, or of characters; what is right is not among them."""
    assert [r.id for r in evaluation(PAIRS).worst(9)] == ["u3", "u4", "u1", "u2"]
    assert [r.id for r in evaluation(PAIRS, "cer").worst(3)] == ["u3", "u4", "u1"]
    long = [("A B C D", "A B C"), ("A B C D E F G H", "A B C D E F")]
    assert [r.id for r in evaluation(long).worst(2)] == ["u1", "u0"]


def test_confusions() -> None:
    words = evaluation(PAIRS).confusions("word")
    assert words.substitutions == {("THE", "A"): 1, ("A", "THE"): 1}
    assert words.insertions == {"DOWN": 1, "OH": 1}
    assert words.deletions == {"GO": 1, "ON": 1}
    many = evaluation([("AB", "AC"), ("BB", "CC"), ("X", ""), ("", "Y")])
    assert many.confusions("character").most_common(2) == [("B", "C", 3), ("", "Y", 1)]
    assert many.confusions("character").most_common() == [("B", "C", 3), ("", "Y", 1), ("X", "", 1)]


def test_confusions_are_as_many_as_edits() -> None:
    found = evaluation(PAIRS)
    for unit, edits in (("word", found.counts.word_edits), ("character", found.counts.character_edits)):
        assert sum(times for *_, times in found.confusions(unit).most_common()) == edits


def test_classes() -> None:
    results = [
        Result("a", "bed", "bed", 1.0, 0.9),
        Result("b", "bed", "cat", 1.0, 0.6),
        Result("c", "cat", "bed", 1.0, 0.8),
        Result("d", "cat", "cat", 1.0, 0.5),
        Result("e", "cat", "bed", 1.0, 0.7),
    ]
    found = Evaluation("classify", True, "accuracy", ["bed", "cat", "happy"], results)
    assert found.matrix() == [[1, 1, 0], [2, 1, 0], [0, 0, 0]]
    assert found.metrics()["accuracy"] == pytest.approx(2 / 5)
    assert [r.id for r in found.worst(2)] == ["c", "e"]
    assert found.to_json()["confusion_matrix"]["rows"] == found.matrix()


def test_json_has_no_nan() -> None:
    value = evaluation([("", "OH")]).to_json()
    assert value["metrics"]["wer"] is None
    assert math.isnan(evaluation([("", "OH")]).metrics()["wer"])
    assert json.loads(json.dumps(value, allow_nan=False)) is not None
