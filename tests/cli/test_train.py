"""``asrkern train``: what it says while it runs, and when it is stopped."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.cli.train import train
from asrkern.training import trainer
from asrkern.training.callbacks import _duration
from asrkern.training.module import RecognitionModule
from asrkern.training.recipe import make_recipe
from tests.training.tones import tiny_recipe, write_tones


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Of 3 epochs of 4 steps."""
    manifest = write_tones(tmp_path / "tones", 20)
    values = tiny_recipe(
        manifest, manifest, trainer__log_steps=2, trainer__checkpoint_steps=3, data__sorted_epochs=0
    )
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, pairs in values.items():
        if isinstance(pairs, dict):
            plain = {k: v for k, v in pairs.items() if not isinstance(v, dict)}
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
            for name, more in pairs.items():
                if isinstance(more, dict):
                    lines += [f"[{section}.{name}]", *(f"{k} = {json.dumps(v)}" for k, v in more.items())]
    (tmp_path / "r e.toml").write_text("\n".join(lines))
    return tmp_path / "r e.toml"


def test_the_log_says_where_training_is(recipe: Path, tmp_path: Path) -> None:
    result = run("train", recipe, "--out", tmp_path / "run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    share, loss, left = r"\d+\.\d\d %", r"loss \d+\.\d{4}", r", \d+ s left"
    both = rf"train {loss}, cer {share}; valid {loss}, cer {share}( \(best\))?"
    expected = []
    for epoch in (1, 2, 3):
        for step in (4 * epoch - 2, 4 * epoch):
            expected.append(
                rf"epoch {epoch} of 3, step {step} of 12: train {loss}{left if step < 12 else ''}"
            )
        expected.append(rf"epoch {epoch} of 3: {both}; \d+\.\d s, \d+ MiB{left if epoch < 3 else ''}")
    lines = [re.sub(r"^\S+ ", "", line) for line in result.stderr.splitlines() if "epoch" in line]
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert re.search(rf"epoch \d is the best, cer {share} \(constant answer {share}\)\n$", result.stdout)
    assert re.search(rf"\| {share} \| \d\S+ \| {share} \|", (tmp_path / "run" / "results.md").read_text())
    assert "%" not in (tmp_path / "run" / "results.csv").read_text()
    # No bar where there is no terminal.
    assert "━" not in result.stderr and "training" not in result.stderr


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Shells start what runs in the background deaf to SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("step", "saved"), [(2, None), (6, "epoch 1 of 3, step 4 of 12"), (7, "epoch 2 of 3, step 6 of 12")]
)
def test_an_interrupted_run_says_what_is_saved_and_how_to_go_on(
    step: int, saved: str | None, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = RecognitionModule.training_step

    def stopped(self: RecognitionModule, *batch: Any) -> Any:
        if self.global_step == stop_at:
            signal.raise_signal(signal.SIGINT)
        return usual(self, *batch)

    stop_at = step - 1
    handler = signal.default_int_handler
    monkeypatch.setattr(RecognitionModule, "training_step", stopped)
    out = tmp_path / "the run"
    result = run("train", recipe, "optimizer.lr=1e-3", "--out", out)
    assert result.exit_code == 130, result.output
    assert signal.getsignal(signal.SIGINT) is handler
    said, command = result.stderr.splitlines()[-2:]
    assert said.startswith(f"{out}: training was interrupted; ")
    if saved is None:
        assert said.endswith("nothing of it is saved yet") and not (out / "last.ckpt").exists()
    else:
        assert f"{out}/last.ckpt holds the run up to {saved}" in said and "--resume goes on" in said
    assert command == f"to go on: asrkern train '{recipe}' optimizer.lr=1e-3 --out '{out}' --resume"
    if saved is not None:
        # Stopped before anything new is saved.
        stop_at = int(re.search(r"step (\d+)", saved)[1])
        result = run("train", recipe, "optimizer.lr=1e-3", "--out", out, "--resume")
        assert result.exit_code == 130 and f"holds the run up to {saved}" in result.stderr
    monkeypatch.setattr(RecognitionModule, "training_step", usual)
    result = run("train", recipe, "optimizer.lr=1e-3", "--out", out, "--resume")
    assert result.exit_code == 0 and "epoch 3 of 3: " in result.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_below_the_log(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", screen)
    train(recipe, ["trainer.epochs=1"], tmp_path / "run")
    monkeypatch.undo()
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"training +━+ +100%", shown)
    assert "epoch 1 of 1: train loss" in shown


def test_progress_is_told_in_steps(recipe: Path, tmp_path: Path) -> None:
    manifest = str(tmp_path / "tones" / "manifest.jsonl")
    told: list[tuple[str, int, int | None]] = []
    values = make_recipe(tiny_recipe(Path(manifest), Path(manifest), trainer__epochs=1))
    trainer.train(values, tmp_path / "run", progress=lambda *now: told.append(now))
    assert told == [("training", step, 4) for step in range(5)]


def test_durations() -> None:
    assert [_duration(s) for s in (0.4, 59.6, 61, 3599, 3600 * 26 + 61)] == [
        "0 s", "1 min 00 s", "1 min 01 s", "59 min 59 s", "26 h 01 min",
    ]  # fmt: skip
