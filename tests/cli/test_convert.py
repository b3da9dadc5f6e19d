"""``asrkern convert``: checkpoints of all lineages give what their originals give, then evaluate and transcribe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.data import MFCC, LogMelSpectrogram, Spectrogram, collate
from asrkern.recognizer.saved import Recognizer, load
from tests.cli.tiny import speech
from tests.compare import assert_close
from tests.models import las_twins
from tests.models import stock_deepspeech2 as stock
from tests.models.test_conv_transformer import plain_rnn, plain_transformer
from tests.models.test_deepspeech2_checkpoints import make_model, package
from tests.models.test_las_checkpoints import hw4_container
from tests.training.tones import write_tones

KOREAN = [*(chr(0xAC00 + i) for i in range(36)), " ", "<s>", "</s>", "_"]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def saved(value: object, folder: Path) -> Path:
    torch.save(value, folder / "old.pth")
    return folder / "old.pth"


def converted(value: object, folder: Path, *arguments: Any) -> Recognizer:
    result = run("convert", saved(value, folder), folder / "new.safetensors", *arguments)
    assert result.exit_code == 0, result.output
    return load(folder / "new.safetensors")


def assert_usable(folder: Path, status: int = 0) -> list[dict[str, Any]]:
    """What transcribe says of recordings, which evaluate says too."""
    manifest = write_tones(folder / "speech", 3, words=6, pitch="b")
    files = sorted((folder / "speech").glob("*.wav"))
    result = run("transcribe", folder / "new.safetensors", *files, "--json")
    assert result.exit_code == 0, result.output
    values = [json.loads(line) for line in result.stdout.splitlines()]
    options = ["--label", "pitch", "--json", folder / "out.json"]
    result = run("evaluate", folder / "new.safetensors", manifest, *options)
    assert result.exit_code == status, result.output
    assert len(json.loads((folder / "out.json").read_text())["utterances"]) == 3
    return values


@pytest.mark.parametrize("layout", stock.LAYOUTS)
@torch.no_grad()
def test_deepspeech2(layout: str, tmp_path: Path) -> None:
    original = make_model(layout)
    # Only version 3, which keeps no labels beside its weights, has the periodic window.
    container = {"state_dict": original.state_dict()} if layout == "v2" else package(original, layout)
    recognizer = converted(container, tmp_path)
    spectrogram = Spectrogram(periodic=layout == "v2")
    features, lengths = collate([spectrogram(speech(2).repeat_interleave(2))])
    assert torch.equal(recognizer.features.make()(speech(2).repeat_interleave(2))[None, None], features)
    expected, _ = original(features, lengths)
    if stock.LAYOUTS[layout].output == "softmax":
        expected = expected.log()
    assert_close(recognizer.model(features, lengths)[0], expected, 1e-5)
    assert "".join(recognizer.tokenizer.labels) == stock.LABELS and recognizer.tokenizer.blank == 0
    assert recognizer.text("it's") == "IT'S"
    assert recognizer.info["converted"] == "old.pth"
    assert all(value["words"] is not None for value in assert_usable(tmp_path))


def test_labels_of_the_file_and_given_ones(tmp_path: Path) -> None:
    original = make_model("v2", labels="_abc ")
    recognizer = converted(package(original, "v2", labels="_abc "), tmp_path)
    assert recognizer.tokenizer.labels == tuple("_abc ") and recognizer.text("A b") == "a b"
    bare = saved(original.state_dict(), tmp_path)
    result = run("convert", bare, tmp_path / "new.safetensors")
    assert result.exit_code == 1 and "labels: the file has none for its 5 classes" in result.stderr
    (tmp_path / "labels.json").write_text(json.dumps(list("_가나다 ")))
    recognizer = converted(original.state_dict(), tmp_path, "--labels", tmp_path / "labels.json")
    assert recognizer.tokenizer.labels == tuple("_가나다 ") and recognizer.text.case == "keep"
    (tmp_path / "labels.txt").write_text("_\na\nb\n")
    result = run("convert", bare, tmp_path / "new.safetensors", "--labels", tmp_path / "labels.txt")
    assert result.exit_code == 1 and "labels: expected 5" in result.stderr and "received 3" in result.stderr


@torch.no_grad()
def test_hw4(tmp_path: Path) -> None:
    twin = las_twins.randomise(las_twins.HW4Model())
    recognizer = converted(hw4_container(twin), tmp_path)
    assert recognizer.model_name == "las_hw4"
    samples = speech(2).repeat_interleave(2)
    features, lengths = collate([MFCC()(samples)])
    assert torch.equal(recognizer.features.make()(samples)[None, None], features)
    y = torch.tensor([recognizer.tokenizer.encode("IT'S A CAT")])
    logits = recognizer.model(features, lengths, y, torch.tensor([y.shape[1]])).logits
    spelled = torch.cat([torch.tensor([[las_twins.SOS]]), y, torch.tensor([[las_twins.EOS]])], 1)
    assert_close(logits, twin(features[:, 0].transpose(1, 2), lengths, spelled), 1e-5)
    values = assert_usable(tmp_path)
    # Not cut short: tokens per frame are not known, and must not be taken as none.
    assert all(len(value["text"]) > 5 for value in values)


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True])
def test_kospeech(whole: bool, tmp_path: Path) -> None:
    twin = las_twins.randomise(las_twins.ListenAttendSpell(mels=80))
    (tmp_path / "labels.csv").write_text(
        "id,char,freq\n" + "".join(f"{i},{label},1\n" for i, label in enumerate(KOREAN))
    )
    recognizer = converted(
        twin if whole else twin.state_dict(), tmp_path, "--labels", tmp_path / "labels.csv"
    )
    assert recognizer.model_name == "las_kospeech" and recognizer.text.case == "keep"
    samples = speech(2).repeat_interleave(2)
    features, lengths = collate([LogMelSpectrogram(80)(samples)])
    assert torch.equal(recognizer.features.make()(samples)[None, None], features)
    y = torch.tensor([recognizer.tokenizer.encode("가각 갂")])
    logits = recognizer.model(features, lengths, y, torch.tensor([y.shape[1]])).logits
    spelled = torch.cat([y, torch.tensor([[recognizer.tokenizer.eos]])], 1)
    assert_close(logits, twin(features[:, 0].transpose(1, 2), spelled), 1e-5)
    assert_usable(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["conv_transformer", "conv_rnn"])
def test_classifiers(kind: str, tmp_path: Path) -> None:
    original = plain_transformer() if kind == "conv_transformer" else plain_rnn("combine", "lstm", True)
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    options = ["n_freq=33", *(["num_heads=4"] if kind == "conv_transformer" else [])]
    recognizer = converted(
        {"state_dict": original.state_dict()}, tmp_path, *options, "--labels", tmp_path / "labels.txt"
    )
    assert recognizer.model_name == kind and recognizer.tokenizer.labels == ("a", "b", "c")
    features, lengths = collate([recognizer.features.make()(speech(1))])
    assert features.shape[2] == 33
    assert_close(recognizer.model(features, lengths), original(features[:, 0], lengths), 1e-5)
    assert {value["class"] for value in assert_usable(tmp_path)} <= set("abc")


def refused(value: object, folder: Path, *arguments: Any) -> str:
    (folder / "new.safetensors").write_text("before")
    result = run("convert", saved(value, folder), folder / "new.safetensors", *arguments)
    assert result.exit_code == 1 and "Traceback" not in result.stderr
    assert (folder / "new.safetensors").read_text() == "before"
    return result.stderr


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    message = refused(nn.Linear(2, 3).state_dict(), tmp_path)
    assert "expected a checkpoint of DeepSpeech2" in message and "with the keys bias, weight" in message
    assert "labels: the file has none; expected 40" in refused(
        las_twins.ListenAttendSpell().state_dict(), tmp_path
    )
    assert "labels: the file has none; expected 3 (the classes" in refused(
        plain_rnn("combine", "gru", False).state_dict(), tmp_path, "n_freq=33"
    )
    hann = {"sample_rate": 16000, "window_size": 0.02, "window_stride": 0.01, "window": "hann"}
    original = make_model("v2")
    assert "window: expected 'hamming'" in refused(package(original, "v2", audio_conf=hann), tmp_path)
    state = original.state_dict()
    assert "expected 'layout'" in refused(state, tmp_path, "layuot=v2")
    assert "expected NAME=VALUE, received 'layout'" in refused(state, tmp_path, "layout")
    assert "LAS has no 'heads'" in refused(las_twins.HW4Model().state_dict(), tmp_path, "heads=3")
    state["fc.0.module.1.weight"][0, 0] = float("nan")
    assert "NaN or infinite values: fc.0.module.1.weight" in refused(state, tmp_path)
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    result = run("convert", tmp_path / "other.safetensors", tmp_path / "new.safetensors")
    assert result.exit_code == 1 and "is not a readable torch checkpoint" in result.stderr


def test_the_old_file_stays(tmp_path: Path) -> None:
    path = saved(make_model("v2").state_dict(), tmp_path).rename(tmp_path / "old.safetensors")
    before = path.read_bytes()
    result = run("convert", path, path)
    assert result.exit_code == 1 and "which would be overwritten" in result.stderr
    assert path.read_bytes() == before
