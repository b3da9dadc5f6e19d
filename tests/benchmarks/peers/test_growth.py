"""benchmarks/peers/growth.py: a table, a CSV and a picture for each dimension that grows."""

from __future__ import annotations

import csv

import pytest

from benchmarks.peers import growth, layers
from benchmarks.shapes import RecurrentShape


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(layers, "QUICK", {"rounds": 2, "seconds": 0.0})
    monkeypatch.setattr(
        growth,
        "GRU_GROWTH",
        {
            "steps": [RecurrentShape(4, 1, 2), RecurrentShape(4, 1, 3)],
            "batch": [RecurrentShape(4, 1, 5), RecurrentShape(4, 2, 5)],
        },
    )


def test_csv_and_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert growth.main(["--results", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.count("torch / asrkern") == 2
    with (tmp_path / "new" / "growth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["T"] for row in rows if row["varied"] == "T" and row["backend"] == "torch"] == ["2", "3"]
    assert [row["N"] for row in rows if row["varied"] == "N" and row["backend"] == "asrkern"] == ["1", "2"]
    assert all(0 < float(row["least_ms"]) <= float(row["median_ms"]) <= float(row["most_ms"]) for row in rows)
    assert (tmp_path / "new" / "growth.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_matplotlib_there_is_no_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(growth.importlib.util, "find_spec", lambda name: None)
    assert growth.main(["--results", str(tmp_path)]) == 0
    assert "needs matplotlib" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["growth.csv"]


def test_a_wrong_output_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(layers, "TOLERANCE", -1.0)
    assert growth.main(["--results", str(tmp_path)]) == 1
    assert "FAILED" in capsys.readouterr().out and not list(tmp_path.iterdir())
