"""A model that asrkern does not have: one class and one entry, and all that is done with models can be done with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import asrkern
from asrkern.models import build, registry
from asrkern.models.conv_front_end import FrameGeometry
from asrkern.models.cost import cost
from asrkern.models.system import Converted, Features, Labels, System
from asrkern.recognizer import StreamTranscriber, Transcriber, convert
from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train
from tests.cli.tiny import speech
from tests.training.tones import RATE, tiny_recipe


class Toy(nn.Module):
    """One convolution of five frames with stride 2, and a linear layer, for CTC."""

    def __init__(self, classes: int = 5, bins: int = 12, width: int = 16) -> None:
        super().__init__()
        self.n_classes, self.n_features = classes, bins
        self.toy = nn.Conv1d(bins, width, 5, 2, 2)
        self.head = nn.Linear(width, classes)

    frame_geometry = FrameGeometry(2, 0.0)

    def output_length(self, frames: int) -> int:
        return (frames + 1) // 2

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = self.toy(features.flatten(1, 2)).relu().transpose(1, 2)
        return self.head(x).log_softmax(-1), (lengths + 1) // 2


def decided(tokenizer: Labels, features: Features) -> dict[str, Any]:
    return {"classes": tokenizer.size, "bins": features.n_features}


def read(path: str | os.PathLike[str], labels: Sequence[str] | None, options: dict[str, Any]) -> Converted:
    weights = torch.load(path, weights_only=True)
    width, bins, _ = weights["toy.weight"].shape
    options = {"classes": len(weights["head.bias"]), "bins": bins, "width": width, **options}
    model = Toy(**options).eval()
    model.load_state_dict(weights)
    features = {"kind": "log_mel", "bins": bins, "sample_rate": RATE}
    return Converted(model, "toy", options, features, labels, special={"blank": 0})


TOY = System(
    title="Toy",
    task="ctc",
    names={"toy": Toy, "toy_wide": partial(Toy, width=32)},
    options=Toy,
    decided=decided,
    feature_kind="log_mel",
    typical_seconds=2.0,
    sign="toy.weight",
    convert=read,
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SYSTEMS", dict(registry._SYSTEMS))
    registry.register(TOY)


def test_it_is_built_by_its_names() -> None:
    assert asrkern.models.list()[-2:] == ["toy", "toy_wide"]
    assert build("toy_wide", classes=3).head.weight.shape == (3, 32)
    with pytest.raises(TypeError, match="options: toy has no 'widht', expected 'width'"):
        build("toy", widht=3)
    counted = cost("toy", 1.0)
    assert counted.parameters == 5 * 12 * 16 + 16 + 16 * 5 + 5
    assert counted.flops_per_second == 2 * (5 * 12 * 16 + 16 * 5) * 51
    with pytest.raises(ValueError, match="names: expected new ones, received 'toy', which is Toy's"):
        registry.register(TOY)


def test_it_is_trained_saved_loaded_converted_and_transcribes(
    tones: tuple[Path, Path], tmp_path: Path
) -> None:
    values = tiny_recipe(*tones, model={"name": "toy", "options": {"width": 8}}, trainer__epochs=1)
    train(make_recipe(values), tmp_path / "run")
    recognizer = asrkern.load(tmp_path / "run" / "best.safetensors")
    assert isinstance(recognizer.model, Toy) and recognizer.task_name == "ctc"
    assert recognizer.model_options == {"classes": recognizer.tokenizer.size, "bins": 12, "width": 8}

    samples = speech(3)
    with torch.no_grad():
        recognizer.model.head.weight.mul_(50)
    found = Transcriber(recognizer, beam_width=4).recording(samples)
    assert found.text and " ".join(word.text for word in found.words) == found.text
    # Its convolution sees two frames around each of its own.
    assert Transcriber(recognizer, beam_width=4).recording(samples, 1.0, 0.1).text == found.text
    with pytest.raises(ValueError, match="for a stream, received toy"):
        StreamTranscriber(Transcriber(recognizer, beam_width=4))

    torch.save(recognizer.model.state_dict(), tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match=r"labels: the file has none; expected \d+ \(labels\)"):
        convert(tmp_path / "foreign.pth")
    again = convert(tmp_path / "foreign.pth", recognizer.tokenizer.labels)
    assert again.model_name == "toy" and again.text.case == "upper"
    assert again.predict_audio([samples]) == recognizer.predict_audio([samples])
    torch.save({"other.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of .*Toy.* received one with the keys other"
    ):
        convert(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "attention"}, "task: expected 'ctc' for toy, received 'attention'"),
        ({"features": {"sample_rate": RATE}}, "expected 'log_mel' for toy, received 'spectrogram'"),
        ({"model": {"name": "toys"}}, "model: name: expected 'toy', received 'toys'"),
    ],
)
def test_recipes_that_do_not_fit_it(
    tones: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    values = tiny_recipe(*tones, **{"model": {"name": "toy"}, **changes})
    with pytest.raises(ValueError, match=message):
        train(make_recipe(values), tmp_path)
