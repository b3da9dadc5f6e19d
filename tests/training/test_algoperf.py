"""AlgoPerf's DeepSpeech in recipes: the workloads' masks, and a run from recordings to transcripts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import asrkern
from asrkern.models import AlgoPerfDeepSpeech, StreamingDeepSpeech2
from asrkern.recognizer import Transcriber
from asrkern.training.recipe import load_recipe, make_recipe
from asrkern.training.trainer import train
from tests.cli.tiny import speech
from tests.training.tones import tiny_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "s4_algoperf.toml"


@pytest.mark.parametrize(
    ("variant", "name", "masks"),
    [
        ("base", "deepspeech2_algoperf", (10, 2)),
        ("tanh", "deepspeech2_algoperf_tanh", (10, 2)),
        ("no_resnet", "deepspeech2_algoperf_no_resnet", (10, 2)),
        ("norm_and_spec_aug", "deepspeech2_algoperf_norm_and_spec_aug", (15, 4)),
    ],
)
def test_the_recipe_has_the_masks_of_each_workload(variant, name, masks):
    """time_mask_count and freq_mask_count of the workloads; ratio 0.05 and 27 bins of DeepspeechConfig."""
    values = load_recipe(RECIPE).model_dump()
    recipe = make_recipe(values, values["sweep"][variant])
    assert recipe.model.name == name
    augment = recipe.augment
    assert (augment.time_masks, augment.frequency_masks) == masks
    assert (augment.time_mask_frames, augment.mask_share) == (0, 0.05)
    assert augment.frequency_mask_bins == 27 < augment.frequency_mask_share * recipe.features.n_features
    assert recipe.tokenizer.pieces + 1 == 1024


@pytest.mark.parametrize("name", ["deepspeech2_algoperf", "deepspeech2_algoperf_norm_and_spec_aug"])
def test_it_is_trained_saved_loaded_and_transcribes(name: str, tones: tuple[Path, Path], tmp_path: Path):
    options = {"hidden_size": 24, "num_layers": 1, "num_ffn_layers": 1, "batch_norm_momentum": 0.1}
    values = tiny_recipe(
        *tones,
        model={"name": name, "options": options},
        augment={"time_masks": 2, "time_mask_frames": 0, "mask_share": 0.05, "frequency_masks": 1},
    )
    results = train(make_recipe(values), tmp_path)
    assert results.rows[-1]["train_loss"] < results.rows[0]["train_loss"]
    recognizer = asrkern.load(tmp_path / "best.safetensors")
    assert isinstance(recognizer.model, AlgoPerfDeepSpeech) and recognizer.task_name == "ctc"
    assert recognizer.model.labels == recognizer.tokenizer.labels and recognizer.model.n_features == 12
    with torch.no_grad():
        recognizer.model.fc.module[1].weight.mul_(20)
    found = Transcriber(recognizer, beam_width=4).recording(speech(3))
    assert found.text and " ".join(word.text for word in found.words) == found.text


def test_it_has_no_streams():
    expected = "model: expected a DeepSpeech2, received AlgoPerfDeepSpeech"
    with torch.device("meta"), pytest.raises(TypeError, match=expected):
        StreamingDeepSpeech2(AlgoPerfDeepSpeech(hidden_size=4))
