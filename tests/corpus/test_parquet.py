"""Rows as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import asrkern.corpus.parquet
from asrkern.corpus import write_parquet

WORD = {"text": "zéro", "start_seconds": 0.25, "end_seconds": 0.5, "confidence": 0.75}
SPAN = {"text": "", "start_seconds": 0.0, "end_seconds": 31.5}
ROWS: list[dict[str, Any]] = [
    {"entry": 3, "offset": 0.0, "file": "a.wav", "seconds": 1.5, "text": "zéro", "words": [WORD]},
    {
        "entry": 0,
        "offset": 2.0,
        "file": "b.wav",
        "seconds": 40.0,
        "text": "",
        "words": [],
        "segments": [SPAN],
    },
    {"entry": 1, "offset": 0.0, "file": "c.wav", "seconds": 1.0, "text": "ab", "words": None},
    {"entry": 2**40, "offset": 0.0, "file": "d.wav", "seconds": 1.0, "class": "bed", "probability": 0.5},
    {"entry": 4, "file": "e.wav", "error": "path: expected audio, received an empty file in 'e.wav'"},
]


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "transcripts.jsonl").write_bytes(lines.encode("utf-8", "backslashreplace"))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return parquet.read_table(folder / "transcripts.parquet").to_pylist()


@pytest.mark.parametrize("group", [1, 2, 10_000])
def test_the_same_rows_in_the_same_order(tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asrkern.corpus.parquet, "_GROUP_ROWS", group)
    write_rows(tmp_path, ROWS)
    assert write_parquet(tmp_path) == tmp_path / "transcripts.parquet"
    columns = dict.fromkeys(
        ["entry", "file", "offset", "seconds", "text", "words", "segments", "class", "probability", "error"]
    )
    assert read_rows(tmp_path) == [{**columns, **row} for row in ROWS]


def test_no_rows(tmp_path: Path) -> None:
    write_rows(tmp_path, [])
    assert read_rows(write_parquet(tmp_path).parent) == []


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"entry": 0, "file": "a\udcff.wav", "error": "no 'a\udcff.wav'"}])
    write_parquet(tmp_path)
    [row] = read_rows(tmp_path)
    assert row["file"] == "a\\udcff.wav" and row["error"] == "no 'a\\udcff.wav'"


def test_a_table_that_was_there_stays(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    before = write_parquet(tmp_path).read_bytes()
    write_rows(tmp_path, [*ROWS, {"entry": "seven"}])
    with pytest.raises(ValueError, match="seven"):
        write_parquet(tmp_path)
    assert (tmp_path / "transcripts.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["transcripts.jsonl", "transcripts.parquet"]
