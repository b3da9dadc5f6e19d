"""docs/collapse_picture.py draws what the runs' diagnoses say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
PROGRAM = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "collapse_picture.py"))


def test_each_run_has_a_line_in_each_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for name, verdict in (("bad", "dying signal"), ("good", "learning")):
        runs.append(tmp_path / name)
        runs[-1].mkdir()
        (runs[-1] / "diagnosis.csv").write_text(
            "step,loss,blank_fraction,entropy,dependence,error_rate,verdict\n"
            f"1,9,1.0,3,1e-7,1.0,warming up\n10,2,0.{len(name)},1,0.5,0.25,{verdict}\n"
        )
    figure = PROGRAM["draw"](runs)
    assert [[line.get_ydata()[-1] for line in axes.lines] for axes in figure.axes] == [
        [0.25, 0.25],
        [0.3, 0.4],
        [0.5, 0.5],
    ]
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[1, 10], [1, 10]]
    assert [text.get_text() for text in figure.legends[0].texts] == ["bad: dying signal", "good: learning"]
    assert PROGRAM["main"]([*map(str, runs), "--out", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.png'}\n"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
