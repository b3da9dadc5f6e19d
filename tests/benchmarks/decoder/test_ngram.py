"""benchmarks/decoder/ngram.py: scores are compared, and what differs is not timed."""

import pytest

from asrkern.decoder import NGramLM
from benchmarks.decoder import ngram

LINES = ["the cat sat", "a fat cat sat on the cat", "the fat cat", "cat", "on the cat sat a cat"] * 40


@pytest.fixture
def text(tmp_path, monkeypatch):
    estimate = NGramLM.estimate
    monkeypatch.setattr(
        NGramLM, "estimate", lambda lines, order: estimate(lines, order, discount_fallback=True)
    )
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES))
    return path


def run(text, *arguments):
    return ngram.main([str(text), "--held-out", "20", "--rounds", "2", *arguments])


def test_table(text, capsys):
    pytest.importorskip("kenlm")
    assert run(text, "--order", "3") == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == [
        "kenlm",
        "asrkern",
        "asrkern, quantized",
        "asrkern, one by one",
    ]
    assert rows[2][-1].strip() == "1.00" and all(float(row[-1]) > 0 for row in rows[2:])
    assert "order 3, 180 sentences" in printed and "20 others scored" in printed


def test_without_kenlm(text, capsys, monkeypatch):
    monkeypatch.setattr(ngram.importlib.util, "find_spec", lambda name: None)
    assert run(text) == 0
    printed = capsys.readouterr().out
    assert "Left out: kenlm" in printed and "speed-up" not in printed


def test_scores_that_differ_are_not_timed(text, capsys, monkeypatch):
    pytest.importorskip("kenlm")
    original = NGramLM.full_scores
    monkeypatch.setattr(
        NGramLM,
        "full_scores",
        lambda self, sentence: [(score.log_prob + 1e-4,) for score in original(self, sentence)],
    )
    assert run(text) == 1
    printed = capsys.readouterr().out
    assert "FAILED: a word's score differs from kenlm's by 1.0e-04" in printed and "|" not in printed


def test_sums_that_differ_are_not_timed(text, capsys, monkeypatch):
    original = NGramLM.score_batch
    monkeypatch.setattr(NGramLM, "score_batch", lambda self, sentences: original(self, sentences) + 0.01)
    assert run(text) == 1
    assert "FAILED: the sum over sentences" in capsys.readouterr().out


def test_a_text_too_small_is_explained(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("a b\n" * 30)
    with pytest.raises(SystemExit, match=r"^2$"):
        run(path, "--held-out", "30")
    assert "more sentences than the 30 that are scored, received 30" in " ".join(
        capsys.readouterr().err.split()
    )
    assert run(path) == 2
    assert "10 sentences are too few, or too much alike, for a model of order 4" in capsys.readouterr().err
    path.write_bytes(b"\xff\n" * 30)
    with pytest.raises(SystemExit, match=r"^2$"):
        run(path)
    assert "can't decode" in capsys.readouterr().err


def test_bad_arguments(tmp_path, capsys):
    for arguments, message in [
        ([str(tmp_path / "absent.txt")], "text: expected a file, received"),
        ([__file__, "--rounds", "0"], "expected a positive integer, received '0'"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            ngram.main(arguments)
        assert message in capsys.readouterr().err
