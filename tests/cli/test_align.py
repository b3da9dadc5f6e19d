"""``asrkern align``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.data import load_audio, read_manifest
from asrkern.recognizer import align, estimate_log_priors
from tests.cli.tiny import make_recognizer, speech, write
from tests.training.tones import RATE, write_tones

TEXT = "Ab a, bb\n– a\n"


def run(*arguments: Any, input: str | None = None) -> Any:
    return CliRunner().invoke(app, ["align", *map(str, arguments)], input=input)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Checkpoint, recording, text."""
    audio, text = tmp_path / "a talk.wav", tmp_path / "text.txt"
    soundfile.write(audio, speech(2.0).numpy(), RATE, "FLOAT")
    text.write_text(TEXT, "utf-8")
    return write(tmp_path, make_recognizer("ctc")), audio, text


def test_times_in_every_form(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    checkpoint, audio, _ = files
    expected = align(make_recognizer("ctc"), load_audio(audio, RATE), TEXT)
    tsv = run(*files)
    assert tsv.exit_code == 0, tsv.output
    rows = [line.split("\t") for line in tsv.stdout.splitlines()]
    assert rows[0] == ["start", "end", "confidence", "word"]
    assert [row[3] for row in rows[1:]] == ["Ab", "a,", "bb", "a"]
    assert [row[0] for row in rows[1:]] == [f"{word.start_seconds:.3f}" for word in expected.words]
    for ending, beginning in {
        "json": '{"file"',
        "srt": "1\n00:00:0",
        "vtt": "WEBVTT\n",
        "ctm": "a_talk 1 ",
        "TextGrid": "File type",
    }.items():
        out = tmp_path / f"out.{ending}"
        result = run(*files, "--out", out)
        assert result.exit_code == 0 and result.stdout == "", result.output
        assert out.read_text("utf-8").startswith(beginning)
        named = run(checkpoint, audio, "-", "--format", ending.lower(), input=TEXT)
        assert named.stdout == out.read_text("utf-8")
    found = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert found["text"] == "Ab a, bb a" and found["seconds"] == 2.0
    assert [word["text"] for word in found["words"]] == ["Ab", "a,", "bb", "a"]


def test_priors_of_evaluate(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    checkpoint, audio, _ = files
    corpus = write_tones(tmp_path / "corpus", 3)
    priors = tmp_path / "priors.json"
    result = CliRunner().invoke(app, ["evaluate", str(checkpoint), str(corpus), "--priors", str(priors)])
    assert result.exit_code == 0, result.output
    recognizer = make_recognizer("ctc")
    extract = recognizer.features.make()
    samples = [load_audio(utterance.audio_path, RATE) for utterance in read_manifest(corpus)]
    expected = estimate_log_priors(recognizer, map(extract, samples))
    written = json.loads(priors.read_text("utf-8"))
    torch.testing.assert_close(torch.tensor(written["log_priors"]), expected, rtol=1e-5, atol=1e-5)
    for scale in (0.0, 0.5):
        found = run(*files, "--priors", priors, "--prior-scale", scale, "--format", "json")
        assert found.exit_code == 0, found.output
        times = align(recognizer, load_audio(audio, RATE), TEXT, log_priors=scale * expected).words
        starts = [word["start_seconds"] for word in json.loads(found.stdout)["words"]]
        assert starts == pytest.approx([word.start_seconds for word in times])
    priors.write_text(json.dumps({**written, "labels": written["labels"][::-1]}))
    other = run(*files, "--priors", priors)
    assert other.exit_code == 1 and "expected priors of this model's 29 labels" in other.stderr
    priors.write_text("{}")
    assert "expected a file of asrkern evaluate --priors" in run(*files, "--priors", priors).stderr


def test_mistakes_are_one_line(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    checkpoint, audio, text = files
    (tmp_path / "las").mkdir()
    for arguments, message in (
        ((checkpoint, audio, tmp_path / "none.txt"), "none.txt"),
        ((checkpoint, tmp_path / "none.wav", text), "none.wav"),
        ((write(tmp_path / "las", make_recognizer("attention")), audio, text), "expected a CTC model"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    text.write_bytes(b"\xff\xfe")
    assert "expected a text in UTF-8" in run(checkpoint, audio, text).stderr
    text.write_text("in 1999")
    assert "received '1', '9'; write numbers" in run(checkpoint, audio, text).stderr
    out = run(checkpoint, audio, text, "-o", tmp_path / "times.doc")
    assert out.exit_code == 2 and "times.doc" in out.stderr
