"""Recipes: reading, overrides, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asrkern.models import build
from asrkern.recognizer.tokenizer import make_tokenizer
from asrkern.training.data import SpeechData
from asrkern.training.recipe import how_to_make, load_recipe, make_recipe, parse_override
from asrkern.training.trainer import model_options

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
VALUES: dict[str, Any] = {
    "name": "r",
    "task": "ctc",
    "metric": "cer",
    "model": {"name": "deepspeech2_small"},
    "data": {"train": ["a.jsonl"], "valid": ["b.jsonl"]},
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem


def test_overrides_take_the_place_of_values(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        'name="r"\ntask="ctc"\nmetric="cer"\nmodel.name="deepspeech2"\ndata.train=["a"]\ndata.valid=["b"]\n'
        "[optimizer]\nlr = 0.5\nclip = 1.0\n"
    )
    recipe = load_recipe(
        path,
        ["optimizer.lr=1e-4", "model.options.hidden_size=7", "optimizer.name=sgd", "data.train=['x','y']"],
    )
    assert (recipe.optimizer.lr, recipe.optimizer.clip, recipe.optimizer.name) == (1e-4, 1.0, "sgd")
    assert recipe.model.options == {"hidden_size": 7}
    assert recipe.data.train == ["x", "y"]
    assert recipe.path("x") == tmp_path / "x"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer.epoch": 3}, r"trainer\.epoch: no such key, expected 'epochs'"),
        ({"optimiser.lr": 3}, "optimiser: no such key, expected 'optimizer'"),
        ({"augment.time_mask": 3}, "no such key, expected 'time_masks'"),
        ({"optimizer.lr": -1}, r"optimizer\.lr: .*greater than 0, received -1"),
        ({"optimizer.lr": "fast"}, r"optimizer\.lr: .*received 'fast'"),
        ({"trainer.precision": "8"}, r"trainer\.precision: .*'32', 'bf16-mixed'"),
        ({"metric": "accuracy"}, "metric: expected one for task 'ctc'"),
        ({"features.kind": "stored"}, "bins: expected the number of stored features"),
        ({"features.bins": 80}, "bins: expected none"),
        (
            {"features.kind": "mfcc", "features.sample_rate": 8000, "features.window_seconds": 0.016},
            "window_seconds: expected .* for 80 mel bands, received 0.016, which is for at most 65 at 8000 Hz",
        ),
        (
            {"features.kind": "log_mel", "features.bins": 202},
            "window_seconds: .* for 202 mel bands, received 0.025, which is for at most 201 at 16000 Hz",
        ),
        (
            {"features.kind": "fbank", "features.convention": "icefall", "features.bins": 258},
            "window_seconds: .* for 258 mel bands, received 0.025, which is for at most 257 at 16000 Hz",
        ),
        (
            {"features.kind": "fbank", "features.convention": "gigaam", "features.bins": 202},
            "window_seconds: .* for 202 mel bands, received 0.025, which is for at most 201 at 16000 Hz",
        ),
        ({"augment.speeds": [0.9, 3.0]}, r"augment\.speeds: expected factors from 0\.5 to 2"),
        ({"augment.cepstra": True}, "augment.cepstra: expected false, since features are 'spectrogram'"),
        ({"name": "a/b"}, "name: "),
        ({"metric.name": "cer"}, "expected a section"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_recipe(VALUES, changes)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"model\.name: expected a value, received none"):
        make_recipe({**VALUES, "model": {}})


def test_overrides_are_key_and_value() -> None:
    assert parse_override("a.b = [1, 2]") == ("a.b", [1, 2])
    assert parse_override("a=b=c") == ("a", "b=c")
    assert parse_override("a=true") == ("a", True)
    for wrong in ("a", "=3"):
        with pytest.raises(ValueError, match="expected key=value"):
            parse_override(wrong)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ValueError, match=r"bad\.toml: expected TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_environment_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(VALUES)
    monkeypatch.setenv("CORPORA", "/c")
    assert recipe.path("${CORPORA}/a") == Path("/c/a")
    monkeypatch.delenv("CORPORA")
    with pytest.raises(ValueError, match="CORPORA to be set"):
        recipe.path("${CORPORA}/a")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_variant_of_a_recipe_fits_its_model(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built without memory, with the labels that it would have."""
    monkeypatch.setenv("KSPONSPEECH", str(tmp_path))
    characters = [chr(0xAC00 + i) for i in range(2037)]
    rows = [f"{i},{c},1" for i, c in enumerate([*characters, "<s>", "</s>", "_"])]
    (tmp_path / "train_labels.csv").write_text("id,char,freq\n" + "\n".join(rows), "utf-8")
    recipe = load_recipe(path)
    for name, changes in {"": {}, **recipe.sweep}.items():
        variant = make_recipe(recipe.model_dump(), changes, name)
        tokenizer = make_tokenizer(variant.tokenizer, variant.task, ["bed", "cat", "happy"], variant.path)
        with torch.device("meta"):
            model = build(variant.model.name, **model_options(variant, tokenizer))
        assert model.n_features == variant.features.n_features
        assert 0 < model.output_length(200) <= 200


def test_corpora_that_are_not_there_name_the_command_that_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = "asrkern prepare speech_commands SPEECH_COMMANDS --only bed,cat,happy --out $ASRKERN_DATA/commands3 makes"
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "s0_commands3"))
    monkeypatch.delenv("ASRKERN_DATA", raising=False)
    with pytest.raises(ValueError, match=r"variable ASRKERN_DATA to be set, received none; ") as raised:
        SpeechData(recipe)
    assert how in str(raised.value)
    monkeypatch.setenv("ASRKERN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"commands3/train.jsonl', which does not exist; ") as missing:
        SpeechData(recipe)
    assert how in str(missing.value)
    # Of each recipe of the repository.
    for path in RECIPES:
        for value in load_recipe(path).data.train:
            assert bool(how_to_make(value)) == value.startswith("${ASRKERN_DATA}")
