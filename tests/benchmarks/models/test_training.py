"""benchmarks/models/training.py: both backends train alike, and what differs has no speed-up."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import asrkern.nn
from asrkern.training.recipe import make_recipe
from benchmarks.models import training
from benchmarks.models.training import ASRKERN, STOCK
from tests.training.tones import tiny_recipe, write_tones


class Ends:
    """A connection whose other end always says "go on"."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, value: Any) -> None:
        self.sent.append(value)

    def recv(self) -> None:
        pass


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("tones")
    manifests = write_tones(folder / "train", 13), write_tones(folder / "valid", 3, seed=1)
    options = {"channels": [4], "hidden_size": 12, "num_layers": 2, "dnn_size": 16, "stats": "padded"}
    recipe = make_recipe(tiny_recipe(*manifests, model__options=options, trainer__epochs=2))
    found = {}
    for backend in (STOCK, ASRKERN):
        ends = Ends()
        training.run(backend, recipe, ends)
        assert ends.sent[:-1] == [None, None, None, 13]
        found[backend] = ends.sent[-1]
    return found


def test_both_compute_the_same(rows) -> None:
    for stock, ours in zip(rows[STOCK], rows[ASRKERN], strict=True):
        for key in ("train_loss", "valid_loss"):
            assert ours[key] == pytest.approx(stock[key], rel=2e-5)
    assert rows[ASRKERN][1]["train_loss"] < rows[ASRKERN][0]["train_loss"]


def test_stock_has_torchs_layers() -> None:
    model = torch.nn.Sequential(asrkern.nn.GRU(2, 3))
    (twin,) = training._stock(model)
    assert twin.training
    assert type(twin).forward is not type(model[0]).forward
    assert twin.weight_hh_l0 is model[0].weight_hh_l0


def test_table(rows, tmp_path) -> None:
    text, failure = training.table(rows, 13)
    assert failure is None
    assert re.search(r"\| asrkern .*\| \d+\.\d\d +\|\n?$", text)
    other = [{**row, "train_loss": 1.03 * row["train_loss"]} for row in rows[ASRKERN]]
    text, failure = training.table({**rows, ASRKERN: other}, 13)
    assert failure.startswith("FAILED: the loss of the first epoch") and "speed-up" not in text
    training.plot(rows, "tones", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_one_epoch_is_too_few(capsys, tmp_path) -> None:
    values = tiny_recipe(tmp_path / "train", tmp_path / "valid")
    recipe = tmp_path / "recipe.toml"
    lines = ['name = "tiny"', 'task = "ctc"', 'metric = "cer"', '[model]\nname = "vgg_gru_ctc"']
    recipe.write_text("\n".join([*lines, f"[data]\ntrain = {values['data']['train']}\nvalid = ['x']"]))
    with pytest.raises(SystemExit):
        training.main([str(recipe), "trainer.epochs=1"])
    assert "expected 2 or more" in capsys.readouterr().err
