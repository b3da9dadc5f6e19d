"""A disk that is full ends a run that can be resumed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train
from tests.training.tones import tiny_recipe


def test_a_full_disk_ends_a_run_that_can_be_resumed(
    tones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tiny_recipe(*tones, trainer__epochs=2))
    real = torch.save
    written: list[Path] = []

    def save_once(value: Any, file: Any) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(value, file)
        written.append(file)

    monkeypatch.setattr(torch, "save", save_once)
    said = r"last\.ckpt: cannot be written: No space left on device \(.*\); the previous one is untouched; with more space, "
    with pytest.raises(OSError, match=said + "--resume goes on from the last checkpoint$") as raised:
        train(recipe, tmp_path)
    assert raised.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert [row["epoch"] for row in train(recipe, tmp_path, resume=True).rows] == [1, 2]


def test_a_disk_that_is_full_from_the_start(
    tones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(torch, "save", refuse)
    said = r"last\.ckpt: cannot be written: Disk quota exceeded .*; there is none before it; with more space, --resume begins"
    with pytest.raises(OSError, match=said):
        train(make_recipe(tiny_recipe(*tones, trainer__epochs=1)), tmp_path)
