"""A checkpoint's header is data from outside: each value of a wrong type or size is named, before a model is made."""

from __future__ import annotations

import json
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from asrkern import _memory
from asrkern.recognizer import saved
from asrkern.recognizer.saved import load, read_header, save
from tests.cli.tiny import make_deepspeech2, make_recognizer


def write(path: Path, header: Any, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, path, {"asrkern": header if isinstance(header, str) else json.dumps(header)})
    return path


def changed(folder: Path, where: str, value: Any, task: str = "ctc") -> Path:
    """A checkpoint with another value in its header, by dotted keys; ``...`` takes it away."""
    recognizer = make_deepspeech2() if task == "deepspeech2" else make_recognizer(task)
    save(folder / "whole", recognizer)
    header = read_header(folder / "whole")
    *path, last = where.split(".")
    place = header
    for name in path:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return write(folder / "m.safetensors", header, load_file(folder / "whole"))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("tokenizer.blank", 1.5, "tokenizer.*blank: .*valid integer.*received 1.5"),
        ("tokenizer.blank", "0", "tokenizer.*blank: .*valid integer.*received '0'"),
        ("tokenizer.blank", True, "tokenizer.*blank: .*received True"),
        ("tokenizer.blank", None, r"tokenizer\.blank: expected an index below 29, received None"),
        ("tokenizer.blank", 29, r"blank: expected the index of a label, 0 to 28, or none, received 29"),
        ("tokenizer.blank", -1, r"blank: expected the index of a label, 0 to 28, or none, received -1"),
        ("tokenizer.labels", 5, "tokenizer.*labels: .*valid array, received 5"),
        ("tokenizer.labels", [1, 2], "tokenizer.*labels.0: .*valid string"),
        ("tokenizer.labels", ["_", "a"], "tokenizer: expected 29 labels, the model's classes, received 2"),
        ("tokenizer.labels", ["a"] * 29, "labels: expected each once"),
        ("tokenizer.kind", "words", "tokenizer: .*'words'"),
        ("tokenizer", ["characters"], "tokenizer: .*received"),
        ("features.sample_rate", "8000", "features.sample_rate: .*valid integer.*received '8000'"),
        ("features.sample_rate", 2**40, "features.sample_rate: .*less than or equal to 384000"),
        ("features.bins", 13, "features: expected 12, the model's, received 13"),
        ("features.bins", 2**40, "features: window_seconds: expected .* for 1099511627776 mel bands"),
        ("features.hop_seconds", 1e-9, "features: hop_seconds, window_seconds: expected one sample or more"),
        ("features.window_seconds", 1e9, "features.window_seconds: .*less than or equal to 10"),
        ("features.hop_seconds", float("nan"), "features.hop_seconds: .*received nan"),
        ("features.kind", "chroma", "features.kind: .*'spectrogram', 'log_mel'"),
        ("text.replace", {"a": 1}, "text.replace.a: .*valid string"),
        ("task", "attention", "task: expected 'ctc' for vgg_gru_ctc, received 'attention'"),
        ("task", 7, "task: .*'ctc', 'attention' or 'classify'"),
        ("tokens_per_frame", "0.1", "tokens_per_frame: .*valid number"),
        ("tokens_per_frame", 1e300, "tokens_per_frame: .*less than or equal to 100"),
        ("tokens_per_frame", float("inf"), "tokens_per_frame: .*"),
        ("info", [], "info: .*received"),
        ("info.recipe", "tiny", "info.recipe: .*'tiny'"),
        ("info.recipe.metric", 5, "info.recipe.metric: .*valid string"),
        ("model", "vgg_gru_ctc", "model: .*'vgg_gru_ctc'"),
        ("model.options", [1], "model.options: .*an object, received"),
        ("model.options.labels", 7, "labels: expected at least two, each once, received 7"),
        ("model.options.labels", ["a", 1], "labels: expected at least two, each once"),
        ("model.options.labels", [["a"], ["b"]], "labels: expected at least two, each once"),
        ("model.options.channels", 8, "channels: expected a list, received 8"),
        ("model.options.hidden_size", "8", "hidden_size: expected a positive integer, received '8'"),
        ("model.options.hidden_size", 9, "size mismatch for .*: expected .*, received"),
        ("model.options.heads", 9, "vgg_gru_ctc has no 'heads'"),
        ("features", ..., "features: expected a value, received none"),
        ("info", ..., "info: expected a value, received none"),
        ("format", ..., "expected format 1, received None"),
        ("format", {"a": [[[1]]]}, "expected format 1, received {'a'"),
    ],
)
def test_values_of_wrong_types_are_named(tmp_path: Path, where: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"m\.safetensors: .*{message}") as raised:
        load(changed(tmp_path, where, value))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("task", "where", "value", "message"),
    [
        ("attention", "tokenizer.eos", None, r"tokenizer\.eos: expected an index below 31, received None"),
        ("attention", "model.options.pad_token", 1.0, "pad_token: expected an index below 31"),
        ("attention", "model.options.conv_channels", 8, "conv_channels: expected a list"),
        ("attention", "model.options.rnn_layers", [], "rnn_layers: expected at least one"),
        ("attention", "model.options.rnn_layers", [10**9], "a model whose weights are in the file"),
        ("attention", "model.options.speller_layers", 10**9, "a model whose weights are in the file"),
        ("attention", "model.options.encoder_blocks", 10**9, "a model whose weights are in the file"),
        ("classify", "model.options.fc_sizes", 8, "fc_sizes: expected a list"),
        ("classify", "model.options.num_layers", 10**6, "a model whose weights are in the file"),
        ("deepspeech2", "model.options.num_layers", 10**6, "a model whose weights are in the file"),
        ("deepspeech2", "model.options.hidden_size", 2**40, "sizes of a model|size mismatch"),
        ("deepspeech2", "model.options.hidden_size", 2**14, "size mismatch"),
        (
            "deepspeech2",
            "model.options.conv_padding",
            [[2**30, 5], [10, 5]],
            "conv_padding: expected two pairs",
        ),
        ("deepspeech2", "model.options.conv_padding", ["ab", "cd"], "conv_padding: expected two pairs"),
        ("deepspeech2", "model.options.conv_padding", 5, "conv_padding: expected two pairs"),
        (
            "deepspeech2",
            "model.options.sample_rate",
            10**400,
            "sample_rate: expected a positive integer|window_size",
        ),
        ("deepspeech2", "model.options.sample_rate", "8000", "sample_rate: expected a positive integer"),
        ("deepspeech2", "model.options.window_size", 1e300, "window_size: expected fewer than"),
        ("deepspeech2", "model.options.lookahead_context", 10**6, "size mismatch"),
    ],
)
def test_options_of_wrong_sizes_are_named_before_they_cost_anything(
    tmp_path: Path, task: str, where: str, value: Any, message: str
) -> None:
    path = changed(tmp_path, where, value, task)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"m\.safetensors: .*({message})"):
        load(path)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[]", "header: all of it: .*object"),
        ("7", "header: all of it: .*object"),
        ("null", "header: all of it: .*object"),
        ("{", "header: expected JSON"),
        ("", "header: expected JSON"),
        ("[" * 200_000, "header: expected JSON"),
        ("{}", "expected format 1, received None"),
    ],
)
def test_headers_that_are_no_object(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"x: .*{message}"):
        load(write(tmp_path / "x", header, {"w": torch.ones(1)}))


def _without(tensors: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, k: _without(t, k), "missing key {key}"),
        (lambda t, k: {**t, "other": torch.ones(1)}, "unexpected key other"),
        (lambda t, k: {**t, k: t[k][:-1].contiguous()}, "size mismatch for {key}"),
        (lambda t, k: {**t, k: t[k].to(torch.int32)}, "{key}: expected torch.float32, received I32"),
    ],
)
@pytest.mark.parametrize("task", ["ctc", "attention", "classify"])
def test_weights_that_are_not_the_model_s(
    tmp_path: Path, task: str, change: Callable[..., dict[str, torch.Tensor]], message: str
) -> None:
    save(tmp_path / "whole", make_recognizer(task))
    tensors = load_file(tmp_path / "whole")
    key = max(tensors, key=lambda name: tensors[name].numel())
    path = write(tmp_path / "x", read_header(tmp_path / "whole"), change(tensors, key))
    with pytest.raises(
        ValueError, match=f"x: .*{message.format(key=key)}".replace(".", r"\.").replace(r"\.*", ".*")
    ):
        load(path)


@pytest.mark.parametrize("task", ["ctc", "attention", "classify"])
def test_halves_are_taken(tmp_path: Path, task: str) -> None:
    save(tmp_path / "whole", make_recognizer(task))
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in load_file(tmp_path / "whole").items()}
    write(tmp_path / "x", read_header(tmp_path / "whole"), tensors)
    with pytest.raises(ValueError, match="that have others"):
        load(tmp_path / "x")
    state = load(tmp_path / "x", verify=False).model.state_dict()
    assert all(torch.equal(state[key], value.to(state[key].dtype)) for key, value in tensors.items())


def test_claims_of_safetensors_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "whole", make_recognizer("ctc"))
    whole = (tmp_path / "whole").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    for claimed in (0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1):
        (tmp_path / "x").write_bytes(struct.pack("<Q", claimed) + whole[8:])
        with pytest.raises(ValueError, match=r"x: .*expected"):
            load(tmp_path / "x")


def test_too_little_memory_names_the_file_and_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "m", make_recognizer("ctc"))
    real, calls = saved.build, []

    def build(name: str, **options: Any) -> Any:
        calls.append(name)
        return real(name, **options) if len(calls) == 1 else torch.empty(2**50)

    monkeypatch.setattr(saved, "build", build)
    expected = r"m: a model of 0\.\d MiB: out of memory: 4194304\.0 GiB more were asked for at once$"
    with pytest.raises(MemoryError, match=expected):
        load(tmp_path / "m")


def test_errors_that_are_not_of_memory_stay_what_they_are() -> None:
    assert _memory.out_of_memory(RuntimeError("size mismatch")) is None
    assert _memory.out_of_memory(MemoryError()) == "out of memory"
    with pytest.raises(RuntimeError, match=r"^else$"), _memory.memory_for("something"):
        raise RuntimeError("else")
    with pytest.raises(MemoryError, match=r"^something: out of memory$"), _memory.memory_for("something"):
        raise MemoryError
