"""benchmarks/decoder/batch_decode.py: texts are compared, and what differs is not timed."""

from __future__ import annotations

import pytest

from benchmarks.decoder import batch_decode

ARGUMENTS = ["--utterances", "3", "--sentences", "200", "--rounds", "1"]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert batch_decode.main(ARGUMENTS) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "|" in line]
    assert rows[-1][0] == "asrkern" and all(float(cell) > 0 for cell in rows[-1][1:])
    assert "threads, 3 utterances" in printed


def test_what_differs_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = {"one": lambda: [["a", "b"], ["c"]], "other": lambda: [["a"], ["d", "c"]]}
    monkeypatch.setattr(batch_decode, "prepare", lambda arguments: calls)
    assert batch_decode.main(ARGUMENTS) == 1
    assert capsys.readouterr().out == "other: 1 of 2 texts differ\n"
