"""benchmarks/peers/builds.py: two builds make the same calls by turns."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks._report import command_line
from benchmarks.peers import builds

HERE = str(Path(builds.__file__).resolve().parents[2])


def test_a_build_beside_itself(capsys, monkeypatch):
    monkeypatch.delenv("ASRKERN_DATA", raising=False)
    assert builds.main([HERE, "--only", "layers", "--rows", "bn, TNC 100x8", "--seconds", "0"]) == 0
    table = capsys.readouterr().out
    assert table.count("bn, TNC 100x8x1024") == 2 and "lstm" not in table
    header, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()
    ]
    for row in rows:
        found = dict(zip(header, row))
        assert found["difference"] == "0e+00" and found["pairs"] == str(builds.LEAST_PAIRS)
        least = float(found["after, least ms"]) / float(found["before, least ms"])
        assert float(found["after / before, least"]) == pytest.approx(least, abs=2e-3)


def test_differences():
    a, b = [np.array([1.0, -4.0])], [np.array([1.0, -4.5])]
    assert builds.difference("layers", a, b) == pytest.approx(0.125)
    assert builds.difference("decoder", a, b) == pytest.approx(0.5)
    assert builds.difference("layers", a, [np.array([1.0, math.nan])]) == math.inf


def test_a_folder_without_a_build(tmp_path, capsys):
    with pytest.raises(SystemExit):
        builds.main([str(tmp_path)])
    assert "expected a folder with a built asrkern/" in capsys.readouterr().err


def test_results_tell_no_path_of_one_machine(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = ["--data", str(tmp_path.parent / "data"), f"--json={tmp_path / 'o.json'}", "--only", "lm/x"]
    shown = command_line("a.py", given)
    assert shown == "python a.py --data ../data --json=o.json --only lm/x"
    for file in (Path(HERE) / "benchmarks" / "results").glob("*.md"):
        assert not re.search(r"(?<![\w.`)])/(home|root|work|tmp|Users)/", file.read_text(encoding="utf-8")), (
            file
        )
