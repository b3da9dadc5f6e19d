"""benchmarks/decoder/emissions.py: outputs of a checkpoint, and errors beside times."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("lightning")
from asrkern.recognizer.saved import load, save
from benchmarks.decoder import emissions
from benchmarks.decoder._peers import ASRKERN, FLASHLIGHT, PYCTCDECODE, Best, missing
from tests.cli.tiny import make_recognizer, speech
from tests.training.tones import RATE


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    save(tmp_path / "model.safetensors", make_recognizer("ctc"))
    lines = []
    for index, text in enumerate(("a bad cab", "dead")):
        samples = speech(1.5 + index, seed=index)
        soundfile.write(tmp_path / f"{index}.wav", samples.numpy(), RATE, subtype="FLOAT")
        lines.append({"audio_filepath": f"{index}.wav", "duration": len(samples) / RATE, "text": text})
    (tmp_path / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "text.txt").write_text("a bad cab\ndead bee\nbad bed\n" * 3)
    return [str(tmp_path / name) for name in ("model.safetensors", "manifest.jsonl", "text.txt")]


def test_outputs_are_the_models(files: list[str]) -> None:
    recognizer = load(files[0])
    found = emissions.emissions(recognizer, Path(files[1]))
    assert found.labels[0] == "" and found.labels[1:] == list(recognizer.tokenizer.labels)[1:]
    assert found.texts == ["A BAD CAB", "DEAD"]
    for log_probs, seed in zip(found.log_probs, (0, 1), strict=True):
        expected = recognizer.predict_audio([speech(1.5 + seed, seed=seed)])
        tokens = log_probs.argmax(-1).unique_consecutive().tolist()
        assert [recognizer.tokenizer.decode(token for token in tokens if token)] == expected


def test_table(files: list[str], capsys) -> None:
    assert emissions.main([*files, "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "2 utterances" in printed and f"{ASRKERN} µs a frame" in printed
    for peer in (FLASHLIGHT, PYCTCDECODE):
        assert f"{peer} WER" in printed
        assert (missing(peer) is None) or f"not installed: pip install {peer}" in printed


def test_more_errors_than_a_peer_fail(files: list[str], capsys, monkeypatch) -> None:
    def all_right(*_: object) -> object:
        texts = itertools.cycle(["A BAD CAB", "DEAD"])
        return lambda log_probs: Best(next(texts), 0.0)

    monkeypatch.setattr(emissions.peers, "missing", lambda name: None)
    for name in ("flashlight", "pyctcdecode"):
        monkeypatch.setattr(emissions.peers, name, all_right)
    assert emissions.main([*files, "--rounds", "1"]) == 1


def test_models_without_characters_are_refused(files: list[str], tmp_path: Path, capsys) -> None:
    save(tmp_path / "las.safetensors", make_recognizer("attention"))
    with pytest.raises(SystemExit):
        emissions.main([str(tmp_path / "las.safetensors"), *files[1:]])
    assert "expected a CTC model of characters, received las_hw4" in capsys.readouterr().err
