"""Recipes whose parts do not fit together, and weights to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asrkern.recognizer.saved import load
from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train
from tests.training.tones import tiny_recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "vgg_gru_cts"}, "model: name: expected 'vgg_gru_ctc'"),
        (
            {"model.options.hiden_size": 3},
            "model: options: vgg_gru_ctc has no 'hiden_size', expected 'hidden_size'",
        ),
        ({"model.options.dropout": 1.5}, "model: dropout: expected a probability"),
        ({"model": {"name": "las_hw4"}}, "task: expected 'attention' for las_hw4, received 'ctc'"),
        ({"data.train": ["none.jsonl"]}, "expected a manifest or a folder, received .*none.jsonl"),
        ({"tokenizer.vocabulary": "none.txt"}, "none.txt"),
    ],
)
def test_parts_that_do_not_fit(
    tones: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    recipe = make_recipe(tiny_recipe(*tones), changes)
    with pytest.raises((ValueError, OSError), match=message):
        train(recipe, tmp_path)
    # A corrected recipe may use the folder.
    train(make_recipe(tiny_recipe(*tones, trainer__epochs=1)), tmp_path)


def test_a_run_begins_with_the_weights_of_another(tones: tuple[Path, Path], tmp_path: Path) -> None:
    still = {"optimizer__lr": 1e-12, "trainer__epochs": 1}
    train(make_recipe(tiny_recipe(*tones, trainer__epochs=1)), tmp_path / "first")
    path = str(tmp_path / "first" / "last.safetensors")
    train(make_recipe(tiny_recipe(*tones, model__init=path, seed=9, **still)), tmp_path / "second")
    first, second = (
        dict(load(tmp_path / n / "last.safetensors").model.named_parameters()) for n in ("first", "second")
    )
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-6)
    wider = tiny_recipe(*tones, model__init=path)
    wider["model"]["options"]["dnn_size"] = 17
    with pytest.raises(ValueError, match=r"(?s)model\.init: .*size mismatch"):
        train(make_recipe(wider), tmp_path / "third")
