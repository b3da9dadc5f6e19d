"""benchmarks/decoder/hotword_rows.py: rows are compared, and what differs is not timed."""

from __future__ import annotations

import pytest

from asrkern.decoder import CTCBeamDecoder
from benchmarks.decoder import hotword_rows

ARGUMENTS = ["--rows", "3", "--words", "2", "--rounds", "1"]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert hotword_rows.main(ARGUMENTS) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "|" in line]
    assert [row[0] for row in rows[2:]] == ["one list", "a list for each row", "new lists"]
    assert rows[2][2] == "1.000" and all(float(cell) > 0 for row in rows[2:] for cell in row[1:])


def test_what_differs_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decode = CTCBeamDecoder.decode
    monkeypatch.setattr(
        CTCBeamDecoder,
        "decode",
        lambda self, x, lengths=None, **more: decode(self, x - 0.01 * (x.dim() == 3), lengths, **more),
    )
    assert hotword_rows.main(ARGUMENTS) == 1
    assert capsys.readouterr().out.startswith("row 0: expected ")
