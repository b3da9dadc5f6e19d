"""Checkpoints: what they hold, that they are whole or not there, and what is said of damaged ones."""

from __future__ import annotations

import json
import os
import random
import resource
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import asrkern
from asrkern.models import build
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.saved import Recognizer, load, read_header, save
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import CharacterTokenizer, TokenizerSettings, make_tokenizer
from tests.cli.tiny import LAS_OPTIONS


def ctc(seed: int = 0, **options: Any) -> Recognizer:
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(TokenizerSettings(), "ctc", [])
    options = {
        "labels": list(tokenizer.labels),
        "n_mels": 12,
        "channels": [4],
        "hidden_size": 8,
        "num_layers": 1,
        "dnn_size": 8,
        **options,
    }
    features = FeatureSettings(kind="log_mel", bins=12, sample_rate=8000)
    text = TextNormalization(replace={"-": " "})
    model = build("vgg_gru_ctc", **options).eval()
    return Recognizer(model, "vgg_gru_ctc", options, "ctc", tokenizer, features, text, 0.1, {"epoch": 3})


def las() -> Recognizer:
    tokenizer = make_tokenizer(TokenizerSettings(), "attention", [])
    features = FeatureSettings(kind="mfcc", bins=12, sample_rate=8000)
    model = build("las_hw4", **LAS_OPTIONS).eval()
    return Recognizer(
        model, "las_hw4", LAS_OPTIONS, "attention", tokenizer, features, TextNormalization(), 0.1
    )


def classifier() -> Recognizer:
    tokenizer = CharacterTokenizer(("bed", "cat"), unit="class")
    options = {"classes": 2, "n_freq": 81, "hidden_size": 8, "num_layers": 1, "fc_sizes": [8, 8]}
    model = build("conv_rnn", **options).eval()
    return Recognizer(
        model,
        "conv_rnn",
        options,
        "classify",
        tokenizer,
        FeatureSettings(sample_rate=8000),
        TextNormalization(),
    )


def test_asrkern_load_is_the_documented_way(tmp_path):
    save(tmp_path / "model.safetensors", ctc())
    loaded = asrkern.load(tmp_path / "model.safetensors")
    expected = load(tmp_path / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), expected.model.parameters()))
    assert loaded.model_options == expected.model_options and not loaded.model.training


@pytest.mark.parametrize("make", [ctc, las, classifier])
def test_what_is_loaded_is_what_was_saved(make: Any, tmp_path: Path) -> None:
    recognizer = make()
    path = tmp_path / "model.safetensors"
    save(path, recognizer)
    loaded = load(path)
    for name in (
        "model_name",
        "model_options",
        "task_name",
        "tokenizer",
        "features",
        "text",
        "tokens_per_frame",
        "info",
    ):
        assert getattr(loaded, name) == getattr(recognizer, name), name
    assert not loaded.model.training
    for key, value in recognizer.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value), key
    samples = [torch.randn(4000), torch.randn(2600)]
    assert loaded.predict_audio(samples) == recognizer.predict_audio(samples)
    assert stat.S_IMODE(path.stat().st_mode) & 0o044
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_weights_that_are_one_stay_one(tmp_path: Path) -> None:
    """HW4P2's speller shares its last weight with the embedding, and its attention with the model."""
    save(tmp_path / "m", las())
    model = load(tmp_path / "m").model
    assert model.speller.char_prob.weight is model.speller.embedding.weight
    assert model.speller.attend is model.attend


def altered(data: bytes, old: bytes, new: bytes) -> bytes:
    """As by one who leaves the header's checksum out."""
    return data.replace(old, new).replace(b"asrkern_checksum", b"asrkern_checksux")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-7], "expected an intact safetensors file"),
        (lambda data: b"", "expected an intact safetensors file"),
        (lambda data: data.replace(b'\\"format\\": 1', b'\\"format\\": 9'), "expected format 1, received 9"),
        (lambda data: data.replace(b"vgg_gru_ctc", b"vgg_gru_cts"), "header: expected checksum .* damaged"),
        (lambda data: altered(data, b"vgg_gru_ctc", b"vgg_gru_cts"), "expected a checkpoint.*'vgg_gru_ctc'"),
        (
            lambda data: altered(data, b'\\"dnn_size\\": 8', b'\\"dnn_size\\": 9'),
            "expected a checkpoint.*size mismatch",
        ),
    ],
)
def test_damaged_checkpoints_are_named(spoil: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(path, ctc())
    spoiled = spoil(path.read_bytes())
    assert spoiled != path.read_bytes()
    path.write_bytes(spoiled)
    with pytest.raises(ValueError, match=rf"(?s)m\.safetensors: .*{message}"):
        load(path)


@pytest.mark.parametrize("make", [ctc, las, classifier])
def test_no_single_bit_changes_unseen(make: Any, tmp_path: Path) -> None:
    """Neither in the weights nor in the header: labels, options, statistics of features."""
    path = tmp_path / "m.safetensors"
    save(path, make())
    whole, expected, state = path.read_bytes(), read_header(path), load(path).model.state_dict()
    header = 8 + int.from_bytes(whole[:8], "little")
    chance = random.Random(0)
    places = [chance.randrange(header, len(whole)) for _ in range(60)]
    places += [chance.randrange(header) for _ in range(60)]
    for place in places:
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << chance.randrange(8)
        path.write_bytes(spoiled)
        try:
            found = load(path).model.state_dict()
        except ValueError as error:
            assert "m.safetensors" in str(error)
        else:
            # White space, and safetensors' own names of weights that are one.
            assert place < header and read_header(path) == expected
            assert all(torch.equal(found[key], value) for key, value in state.items())


def test_what_others_have_changed_is_read_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(path, ctc())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights["dnn.module.0.weight"] *= 0.5
    save_file(weights, path, metadata)
    with pytest.raises(
        ValueError, match=r"received 1 of 29 that have others, such as dnn\.module\.0\.weight: .*verify"
    ):
        asrkern.load(path)
    loaded = asrkern.load(path, verify=False)
    assert torch.equal(loaded.model.state_dict()["dnn.module.0.weight"], weights["dnn.module.0.weight"])
    # Of a release that had no checksums.
    header = {k: v for k, v in json.loads(metadata["asrkern"]).items() if k != "checksums"}
    save_file(weights, path, {"asrkern": json.dumps(header)})
    load(path)


def test_a_model_put_in_anothers_place_is_the_one_that_predicts() -> None:
    first, second = ctc(seed=0), ctc(seed=1)
    samples = [torch.randn(4000) for _ in range(4)]
    expected = first.predict_audio(samples), second.predict_audio(samples)
    assert expected[0] != expected[1]
    first.model = second.model
    assert first.predict_audio(samples) == expected[1]


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        load(tmp_path / "none")
    save_file({"x": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="received other weights"):
        load(tmp_path / "other")
    broken = ctc()
    next(broken.model.parameters()).data.fill_(float("nan"))
    save(tmp_path / "nan", broken)
    with pytest.raises(ValueError, match="NaN or infinite values: conv"):
        load(tmp_path / "nan")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    """The system's own limit on the size of files stands for the disk."""
    path = tmp_path / "m.safetensors"
    save(path, ctc())
    before = path.read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))
    try:
        with pytest.raises(
            OSError, match=r"m\.safetensors: cannot be written: .*; the previous one is untouched"
        ):
            save(path, ctc(seed=1))
        with pytest.raises(
            OSError, match=r"new\.safetensors: cannot be written: .*; there is none before it"
        ):
            save(tmp_path / "new.safetensors", ctc(seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_the_header_says_what_the_model_is(tmp_path: Path) -> None:
    save(tmp_path / "m", ctc())
    header = read_header(tmp_path / "m")
    assert header["model"]["name"] == "vgg_gru_ctc"
    assert header["text"]["replace"] == {"-": " "}
    assert json.dumps(header)


def test_moved_for_inference_a_ctc_model_is_frozen_and_says_the_same(tmp_path):
    features, lengths = torch.randn(2, 1, 161, 60), [60, 41]
    for name, options, frozen in (
        ("deepspeech2_small", {"hidden_size": 8}, True),
        ("conv_rnn", {"hidden_size": 8, "fc_sizes": (4, 4)}, False),
    ):
        model = build(name, **options).eval()
        task = "ctc" if frozen else "classify"
        recognizer = Recognizer(model, name, options, task, None, FeatureSettings(), TextNormalization())
        with torch.inference_mode():
            before = model(features, lengths)
            recognizer.move("cpu")
            after = model(features, lengths)
        assert torch.equal(*(y[0] if frozen else y for y in (before, after)))
        assert any("Frozen" in type(m).__name__ for m in model.modules()) == frozen
        # On, and elsewhere.
        recognizer.move("cpu")
        assert any("Frozen" in type(m).__name__ for m in model.modules()) == frozen
        recognizer.move("meta")
        assert {p.device.type for p in model.parameters()} == {"meta"}
