"""benchmarks/decoder/mapped_tries.py: scores are compared, and what differs is not timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from asrkern.decoder import NGramLM
from benchmarks.decoder import mapped_tries
from tests.decoder.kenlm_writer import SMALL, trie_binary


class InThisProcess:
    """What multiprocessing.get_context gives, without a process."""

    def Pool(self, _: int) -> InThisProcess:
        return self

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def apply(self, function, arguments):
        return function(*arguments)


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(mapped_tries.multiprocessing, "get_context", lambda _: InThisProcess())
    (tmp_path / "trie.bin").write_bytes(trie_binary(SMALL))
    (tmp_path / "text.txt").write_text("a b\nb a c\n\nnobody knows\n")
    return [str(tmp_path / "trie.bin"), str(tmp_path / "text.txt"), "--rounds", "1"]


def test_table(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert mapped_tries.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "4 sentences, 11 words" in printed
    assert all(f"| {way} " in printed for way in ("mapped", "converted"))


def test_beside_the_arpa_file(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arpa = tmp_path / "model.arpa"
    NGramLM.open(arguments[0], keep_ngrams=True).to_arpa(arpa)
    assert mapped_tries.main([*arguments, "--arpa", str(arpa)]) == 0
    assert "| from ARPA |" in capsys.readouterr().out
    # Of another model.
    NGramLM.open(arguments[0]).prune(1.0).to_arpa(arpa)
    assert mapped_tries.main([*arguments, "--arpa", str(arpa)]) == 1
    assert "of from ARPA differs by" in capsys.readouterr().out


def test_made_files(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_tries, "MADE_SENTENCES", 2000)
    monkeypatch.setattr(mapped_tries, "MADE_HELD_OUT", 20)
    assert mapped_tries.main(["--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "made.bin" in printed and "20 sentences" in printed and "| from ARPA |" in printed
    for wrong in (["--arpa", "model.arpa"], arguments[:1]):
        with pytest.raises(SystemExit):
            mapped_tries.main(wrong)


def test_other_scores_are_not_timed(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    score = mapped_tries.score
    monkeypatch.setattr(
        mapped_tries,
        "score",
        lambda model, sentences: [
            found + 1e-6 * getattr(model, "is_mapped", False) for found in score(model, sentences)
        ],
    )
    assert mapped_tries.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "of mapped differs by" in printed and "M words" not in printed
