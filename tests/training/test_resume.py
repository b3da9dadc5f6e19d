"""A run that was killed and resumed is the run that was never stopped."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from asrkern.recognizer.saved import load
from asrkern.training.recipe import Recipe, make_recipe
from asrkern.training.trainer import train
from tests.training.tones import tiny_recipe


class Killed(BaseException):
    """As abrupt as a signal: nothing catches it."""


class Watch(pl.Callback):
    """Remembers every batch's loss and utterances, and kills the run after some of them."""

    def __init__(self, batches: int | None = None) -> None:
        self.seen: list[tuple[int, int, float, tuple[str, ...]]] = []
        self._left = batches

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((trainer.current_epoch, batch_idx, float(outputs["loss"]), tuple(batch.ids)))
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise Killed


def rows(folder: Path) -> list[dict[str, str]]:
    """The table without what depends on the machine."""
    with open(folder / "results.csv") as file:
        return [
            {k: v for k, v in r.items() if k not in ("seconds", "memory_mib")} for r in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    ("killed_after", "changes"),
    [
        # In the second epoch: from the end of the first.
        (7, {}),
        # In the middle of an epoch, with accumulation, moving average, plateaus and augmentation.
        (
            8,
            {
                "trainer__checkpoint_steps": 1,
                "diagnose": True,
                "trainer__accumulate": 2,
                "averaging__ema": 0.9,
                "averaging__last": 2,
                "schedule__warmup": 4,
                "schedule__anneal": 1.1,
                "schedule__plateau_factor": 0.5,
                "schedule__plateau_patience": 0,
                "augment__speeds": [0.9, 1.0, 1.1],
                "augment__time_masks": 1,
                "augment__frequency_masks": 1,
                "augment__frequency_mask_bins": 3,
            },
        ),
        # Checkpoints after every step, killed at the last batch of an epoch, before it is written down.
        (5, {"trainer__checkpoint_steps": 1, "optimizer__name": "sgd", "data__workers": 1}),
    ],
    ids=["epoch", "step", "last-batch"],
)
def test_resumed_run_is_the_run_that_was_never_stopped(
    tones: tuple[Path, Path], tmp_path: Path, killed_after: int, changes: dict[str, Any]
) -> None:
    recipe = make_recipe(tiny_recipe(*tones, **changes))
    whole = Watch()
    train(recipe, tmp_path / "whole", callbacks=[whole])
    assert [epoch for epoch, *_ in whole.seen].index(1) == 5
    killed = Watch(killed_after)
    with pytest.raises(Killed):
        train(recipe, tmp_path / "killed", callbacks=[killed])
    resumed = Watch()
    train(recipe, tmp_path / "killed", resume=True, callbacks=[resumed])

    assert killed.seen == whole.seen[:killed_after]
    assert 0 < len(resumed.seen) < len(whole.seen)
    # Same utterances in the same order, and the same losses to the last bit.
    assert resumed.seen == whole.seen[-len(resumed.seen) :]
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    if recipe.diagnose:
        killed_table, whole_table = (
            (tmp_path / run / "diagnosis.csv").read_text() for run in ("killed", "whole")
        )
        assert killed_table == whole_table and whole_table.count("\n") > 1 + recipe.trainer.epochs
        assert (tmp_path / "whole" / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    for name in ["best", "last", *["averaged"] * bool(recipe.averaging.last)]:
        one, other = (load(tmp_path / run / f"{name}.safetensors").model for run in ("whole", "killed"))
        for key, value in one.state_dict().items():
            assert torch.equal(other.state_dict()[key], value), (name, key)


@pytest.fixture(scope="module")
def complete(tones: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe of one epoch and the folder of its run."""
    recipe = make_recipe(tiny_recipe(*tones, trainer__epochs=1))
    folder = tmp_path_factory.mktemp("complete") / "run"
    train(recipe, folder)
    return recipe, folder


@pytest.fixture
def run(complete: tuple[Recipe, Path], tmp_path: Path) -> tuple[Recipe, Path]:
    """The same, in a copy for one test."""
    recipe, folder = complete
    return recipe, shutil.copytree(folder, tmp_path / "run")


def test_a_complete_run_is_not_trained_again(run: tuple[Recipe, Path]) -> None:
    recipe, folder = run
    again = Watch()
    results = train(recipe, folder, resume=True, callbacks=[again])
    assert not again.seen
    assert [row["epoch"] for row in results.rows] == [1]


def test_a_folder_with_a_run_is_not_overwritten(run: tuple[Recipe, Path]) -> None:
    recipe, folder = run
    with pytest.raises(FileExistsError, match="--resume"):
        train(recipe, folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:5000]),
            "received a zip archive .* cut short or damaged",
        ),
        (lambda path: path.write_bytes(b""), "received an empty file"),
        (lambda path: path.write_text("<html>"), "received a web page"),
        (
            lambda path: torch.save({"state_dict": {}}, path),
            "received a file without optimizer_states, .*asrkern",
        ),
        (lambda path: torch.save([1], path), "received a file without state_dict"),
    ],
)
def test_what_is_no_state_of_a_run(
    run: tuple[Recipe, Path], spoil: Callable[[Path], Any], message: str
) -> None:
    recipe, folder = run
    spoil(folder / "last.ckpt")
    with pytest.raises(ValueError, match=rf"last\.ckpt: expected the state of a run, {message}"):
        train(recipe, folder, resume=True)


def test_a_run_of_another_model(tones: tuple[Path, Path], run: tuple[Recipe, Path]) -> None:
    values = tiny_recipe(*tones, trainer__epochs=2)
    values["model"]["options"]["dnn_size"] += 1
    with pytest.raises(
        ValueError, match=r"last\.ckpt: expected the weights of the recipe's model.*size mismatch"
    ):
        train(make_recipe(values), run[1], resume=True)
