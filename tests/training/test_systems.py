"""Each of the five systems learns from real speech, by the recipe that the project ships for it, in fewer epochs.

``pytest -m "not training"`` leaves these out; they take about half a minute each on two cores.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
import soundfile

from asrkern.data import load_audio, read_manifest
from asrkern.recognizer.saved import load
from asrkern.training.metrics import ErrorCounts, error_of
from asrkern.training.recipe import load_recipe
from asrkern.training.trainer import train

RECIPES = Path(__file__).parents[2] / "recipes"
# Epochs of each, and every how many-th utterance is trained on.
SYSTEMS = {
    "s0_commands3": (1, 3), "s1_fsdd": (5, 1), "s2_fsdd": (3, 1), "s3_fsdd": (3, 1), "s4_fsdd": (2, 1)
}  # fmt: skip
# A minute and a half of two cores.
PROCESSOR_SECONDS = 180


@pytest.mark.training
@pytest.mark.parametrize("name", SYSTEMS)
def test_each_system_halves_the_error_of_the_best_constant_answer(
    name: str, data_dir: Path, tmp_path: Path
) -> None:
    # A moving average lags behind in so few epochs; without changes of speed, features are kept.
    changes = ["averaging.ema=0.0", "augment.speeds=[1.0]", "data.cache_mib=256"]
    epochs, step = SYSTEMS[name]
    recipe = load_recipe(RECIPES / f"{name}.toml", [f"trainer.epochs={epochs}", *changes])
    manifest = recipe.path(recipe.data.train[0])
    part = tmp_path / "train.jsonl"
    lines = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()[::step]]
    absolute = ({**line, "audio_filepath": str(manifest.parent / line["audio_filepath"])} for line in lines)
    part.write_text("".join(json.dumps(line) + "\n" for line in absolute))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": (str(part),)})})
    began = time.process_time()
    results = train(recipe, tmp_path)
    used = time.process_time() - began
    best = results.best()["valid_metric"]
    constant = error_of(results.metric, results.constant)
    assert error_of(results.metric, best) <= constant / 2, results.rows
    assert used < PROCESSOR_SECONDS
    losses = [row["train_loss"] for row in results.rows]
    assert all(after < before for before, after in pairwise(losses))

    # The checkpoint alone, on recordings, does as well as was measured.
    recognizer = load(tmp_path / "best.safetensors")
    utterances = read_manifest(recipe.path(recipe.data.valid[0]))[::5]
    counts = ErrorCounts()
    for u in utterances:
        samples = load_audio(u.audio_path, recognizer.features.sample_rate)
        reference = u.extra["label"] if recipe.task == "classify" else recognizer.text(u.text)
        counts.add_all(recognizer.predict_audio([samples]), [reference])
    assert error_of(results.metric, counts.value(results.metric)) < 0.75 * constant


def test_the_librispeech_recipe_runs_on_a_folder_in_that_layout(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny one of another corpus; the model is smaller too, all else is the recipe's."""
    parts = ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean")
    lines = [json.loads(line) for line in (data_dir / "lj" / "train.jsonl").read_text("utf-8").splitlines()]
    for number, (part, line) in enumerate(zip(parts, sorted(lines, key=lambda line: line["duration"]))):
        chapter = tmp_path / part / f"{number}" / "7"
        chapter.mkdir(parents=True)
        name = f"{number}-7-0000"
        text = "".join(
            c for c in line["text"].upper().replace("-", " ") if c.isascii() and (c.isalpha() or c in "' ")
        )
        samples = load_audio(data_dir / "lj" / line["audio_filepath"], 16000)
        soundfile.write(chapter / f"{name}.flac", samples.numpy(), 16000)
        (chapter / f"{number}-7.trans.txt").write_text(f"{name} {text}\n")
    monkeypatch.setenv("LIBRISPEECH", str(tmp_path))
    changes = [
        "trainer.epochs=1",
        "model.options.hidden_size=8",
        "data.workers=0",
        "trainer.tensorboard=false",
    ]
    recipe = load_recipe(RECIPES / "s4_librispeech.toml", changes)
    results = train(recipe, tmp_path / "run")
    (row,) = results.rows
    assert row["infeasible"] == row["skipped"] == 0
    assert "train: 3 utterances" in results.notes[0]
    assert load(tmp_path / "run" / "best.safetensors").info["recipe"]["optimizer"]["clip"] == 400
