"""benchmarks/models/long_audio.py on seconds of audio."""

from __future__ import annotations

import pytest

from benchmarks.models import long_audio


def test_a_table_of_peaks(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--minutes",
        "0.5",
        "--kind",
        "11025x2.ogg",
        "--model-rate",
        "8000",
        "--task",
        "part",
        "transcribe",
    ]
    # What this process takes is no part of the peak of another.
    large = bytearray(b"\1") * 2**30
    assert long_audio.main(arguments) == 0
    del large
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "ogg" in line]
    assert [row[:3] for row in rows] == [["11025x2.ogg", "8000", task] for task in ("part", "transcribe")]
    assert all(100 < float(row[3]) < 1024 for row in rows)
    assert long_audio.main([*arguments[:-1], "--bound-mib", "1"]) == 1


def test_a_child_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)load of none\.wav: .*FileNotFoundError"):
        long_audio.measure("load", long_audio.Path("none.wav"), long_audio.Path("none"), 8000, 1.0)
