"""Tables, curves, sweeps and commands."""

from __future__ import annotations

import csv
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.training.recipe import make_recipe
from asrkern.training.results import Results, as_markdown
from asrkern.training.sweep import grid, sweep
from asrkern.training.trainer import train
from tests.training.tones import tiny_recipe


def row(epoch: int, metric: float) -> dict[str, Any]:
    return {"epoch": epoch, "train_loss": 1.0, "valid_loss": 2.0, "train_metric": 0.5, "valid_metric": metric}


def toml(path: Path, values: dict[str, Any]) -> Path:
    """A recipe of plain values as a file."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, content in values.items():
        if isinstance(content, dict):
            lines.append(f"[{section}]")
            for key, value in content.items():
                inline = isinstance(value, dict)
                text = (
                    ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items())
                    if inline
                    else json.dumps(value)
                )
                lines.append(f"{key} = {{ {text} }}" if inline else f"{key} = {text}")
    path.write_text("\n".join(lines))
    return path


def test_the_table_knows_its_best_row(tmp_path: Path) -> None:
    results = Results("run", "crr", ["a note"], constant=20.0)
    assert [results.add(row(i, v)) for i, v in enumerate([math.nan, 50.0, 40.0, 50.0, 60.0], 1)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert results.best()["epoch"] == 5
    # A resumed run writes an epoch again.
    assert not results.add(row(3, 45.0))
    assert [r["epoch"] for r in results.rows] == [1, 2, 3]
    results.write(tmp_path)
    with open(tmp_path / "results.csv") as file:
        assert [r["valid_metric"] for r in csv.DictReader(file)] == ["nan", "50.0", "45.0"]
    text = (tmp_path / "results.md").read_text()
    assert "a note" in text
    assert "| epoch | train_loss | valid_loss | train_crr | valid_crr |" in text
    assert "| 3 | 1 | 2 | 0.50 % | 45.00 % |" in text
    width, height = struct.unpack(">II", (tmp_path / "learning_curve.png").read_bytes()[16:24])
    assert (width, height) == (1080, 480)


def test_markdown() -> None:
    assert as_markdown([{"a": 0.123456, "b": "x|y"}]) == "| a | b |\n| --- | --- |\n| 0.1235 | x\\|y |\n"
    assert as_markdown([]) == ""


def test_a_run_leaves_its_table_and_its_files(tones: tuple[Path, Path], tmp_path: Path) -> None:
    values = tiny_recipe(*tones, trainer__epochs=2, trainer__tensorboard=True, averaging__last=2)
    results = train(make_recipe(values), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "averaged.safetensors", "best.safetensors", "epochs", "last.ckpt", "last.safetensors", "learning_curve.png",
        "log.txt", "recipe.json", "results.csv", "results.md", "tensorboard",
    }  # fmt: skip
    assert [path.name for path in sorted((tmp_path / "epochs").iterdir())] == [
        "0001.safetensors",
        "0002.safetensors",
    ]
    assert all(r["seconds"] > 0 and r["memory_mib"] > 10 for r in results.rows)
    log = (tmp_path / "log.txt").read_text()
    assert "output frames per character" in log
    assert "constant answer" in log
    assert "epoch 2 of 2: train loss" in log


def test_training_ends_when_nothing_improves(tones: tuple[Path, Path], tmp_path: Path) -> None:
    values = tiny_recipe(*tones, trainer__epochs=9, trainer__stop_after=2, optimizer__lr=1e-9)
    # Whose running means would change.
    values["model"]["options"]["batch_norm"] = False
    assert [r["epoch"] for r in train(make_recipe(values), tmp_path).rows] == [1, 2, 3]


def test_a_grid_of_values() -> None:
    assert grid({"optimizer.lr": [0.1, 0.01], "model.options.dropout": [0.5]}) == {
        "lr=0.1,dropout=0.5": {"optimizer.lr": 0.1, "model.options.dropout": 0.5},
        "lr=0.01,dropout=0.5": {"optimizer.lr": 0.01, "model.options.dropout": 0.5},
    }
    assert list(grid({"text.remove": ["a/b"]})) == ["remove=a_b"]


def test_a_sweep_makes_one_table_and_survives_a_variant_that_fails(
    tones: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = make_recipe(tiny_recipe(*tones, trainer__epochs=1))
    variants = {
        "plain": {},
        "wrong": {"model.options.dropout": 7},
        "slow": {"optimizer.lr": 1e-6},
    }
    rows = sweep(recipe, variants, tmp_path)
    assert [r["variant"] for r in rows] == ["plain", "wrong", "slow"]
    assert [bool(r["error"]) for r in rows] == [False, True, False]
    assert "dropout: expected a probability" in rows[1]["error"]
    assert rows[0]["valid_cer"] != ""
    assert (tmp_path / "sweep.md").read_text().count("\n| ") == 5
    # Again, nothing is trained.
    again = sweep(recipe, variants, tmp_path, resume=True)
    assert [r["valid_loss"] for r in again] == [r["valid_loss"] for r in rows]
    with pytest.raises(ValueError, match=r"variant typo: .*no such key, expected 'lr'"):
        sweep(recipe, {"plain": {}, "typo": {"optimizer.lrr": 1}}, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    with pytest.raises(ValueError, match="expected at least one"):
        sweep(recipe, {}, tmp_path)


def test_commands(tones: tuple[Path, Path], tmp_path: Path) -> None:
    path = toml(tmp_path / "tiny.toml", tiny_recipe(*tones, trainer__epochs=1))
    run = CliRunner().invoke
    found = run(app, ["train", str(path), "optimizer.lr=1e-3", "-o", str(tmp_path / "run")])
    assert found.exit_code == 0, found.output
    assert "epoch 1 is the best, cer" in found.output
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["optimizer"]["lr"] == 1e-3
    found = run(app, ["train", str(path), "-o", str(tmp_path / "run")])
    assert (found.exit_code, "--resume goes on" in found.output) == (1, True)
    found = run(app, ["train", str(path), "trainer.epoch=2"])
    assert (found.exit_code, "expected 'epochs'" in found.output) == (1, True)
    found = run(app, ["sweep", str(path), "optimizer.lr=1e-3,1e-4", "seed=3", "-o", str(tmp_path / "sweep")])
    assert found.exit_code == 0, found.output
    assert "| lr=0.001 |" in found.output
    assert "| lr=0.0001 |" in found.output
    assert run(app, ["sweep", str(path)]).exit_code == 1
