"""Averages of weights: of the last checkpoints, and a moving one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asrkern.recognizer.saved import load, save
from asrkern.training.averaging import MovingAverage, average_checkpoints
from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train
from tests.cli.tiny import make_recognizer
from tests.training.tones import tiny_recipe


def test_the_average_of_checkpoints(tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        save(path, make_recognizer("ctc", seed))
    average_checkpoints(paths, tmp_path / "mean.safetensors")
    mean = load(tmp_path / "mean.safetensors")
    states = [load(path).model.state_dict() for path in paths]
    for key, value in mean.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, sum(state[key] for state in states) / 3)
    assert mean.info["averaged"] == 3
    save(tmp_path / "other", make_recognizer("ctc", dnn_size=9))
    with pytest.raises(ValueError, match="checkpoints of one model"):
        average_checkpoints([tmp_path / "other", paths[0]], tmp_path / "x")


def test_the_moving_average_is_measured_and_saved(tones: tuple[Path, Path], tmp_path: Path) -> None:
    """By its definition, from the weights after every step."""
    import lightning.pytorch as pl

    seen: list[dict[str, torch.Tensor]] = []

    class Watch(pl.Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            seen.append({k: v.clone() for k, v in module.model.state_dict().items() if v.is_floating_point()})

    recipe = make_recipe(tiny_recipe(*tones, averaging__ema=0.7, trainer__epochs=2))
    train(recipe, tmp_path, callbacks=[Watch()])
    average = seen[0]
    for step, weights in enumerate(seen[1:], 1):
        kept = min(0.7, (1 + step) / (10 + step))
        average = {k: kept * v + (1 - kept) * weights[k] for k, v in average.items()}
    saved = load(tmp_path / "last.safetensors").model.state_dict()
    for key, value in average.items():
        torch.testing.assert_close(saved[key], value, rtol=1e-5, atol=1e-6)
    assert MovingAverage(0.9).should_update(step_idx=0)
