"""benchmarks/decoder/mapped_tries.py: scores are compared, and what differs is not timed."""

from __future__ import annotations

from pathlib import Path

import pytest

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
