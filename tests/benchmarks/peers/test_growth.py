"""benchmarks/peers/growth.py: a table, a CSV and a picture for each dimension that grows."""

from __future__ import annotations

import csv

import pytest

from benchmarks.peers import growth, layers
from benchmarks.shapes import (
    AttentionShape,
    CellShape,
    LinearShape,
    RecurrentShape,
    SpellerShape,
    TransformerShape,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(layers, "QUICK", {"rounds": 2, "seconds": 0.0})
    monkeypatch.setattr(
        growth,
        "GROWTH",
        {
            "gru": {
                "steps": [RecurrentShape(4, 1, 2), RecurrentShape(4, 1, 3)],
                "batch": [RecurrentShape(4, 1, 5), RecurrentShape(4, 2, 5)],
            },
            "lstm_cell": {"hidden_size": [CellShape(4, 1), CellShape(5, 1)]},
            "lstm_cell_prepacked": {"batch": [CellShape(4, 1), CellShape(4, 2)]},
            "linear_quantized": {"in_features": [LinearShape(1, 4, 4), LinearShape(1, 5, 5)]},
            "speller": {"frames": [SpellerShape("hw4", 1, 2), SpellerShape("hw4", 1, 3)]},
            "attention": {"batch": [AttentionShape(1, 5, 2, 4), AttentionShape(2, 5, 2, 4)]},
            "transformer": {"size": [TransformerShape("encoder", 1, 5, n, False) for n in (16, 32)]},
        },
    )


def test_csv_and_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert growth.main(["--results", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.count("torch / asrkern") == 8
    with (tmp_path / "new" / "growth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    gru = [row for row in rows if row["operation"] == "gru"]
    assert [row["T"] for row in gru if row["varied"] == "T" and row["backend"] == "torch"] == ["2", "3"]
    assert [row["N"] for row in gru if row["varied"] == "N" and row["backend"] == "asrkern"] == ["1", "2"]
    for operation in set(growth.GROWTH) - {"gru"}:
        both = [row["backend"] for row in rows if row["operation"] == operation]
        assert sorted(both) == ["asrkern", "asrkern", "torch", "torch"], operation
    assert all(0 < float(row["least_ms"]) <= float(row["median_ms"]) <= float(row["most_ms"]) for row in rows)
    assert (tmp_path / "new" / "growth.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_matplotlib_there_is_no_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(growth.importlib.util, "find_spec", lambda name: None)
    assert growth.main(["gru", "--results", str(tmp_path)]) == 0
    assert "needs matplotlib" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["growth.csv"]


def test_a_wrong_output_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(layers, "TOLERANCE", -1.0)
    assert growth.main(["gru", "lstm_cell", "--results", str(tmp_path)]) == 1
    assert "FAILED" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_an_unknown_operation_is_refused(capsys):
    with pytest.raises(SystemExit):
        growth.main(["lstm_sell"])
    assert "received 'lstm_sell'" in capsys.readouterr().err
