"""What people give commands in place of checkpoints ends in one line; faults of the program keep their tracebacks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from asrkern.cli import transcribe
from asrkern.cli.app import app
from asrkern.cli.console import errors, one_line
from asrkern.recognizer.saved import save
from tests.cli.tiny import make_recognizer
from tests.test_file_kinds import KINDS
from tests.training.tones import write_tones


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("speech"), 1)


def commands(checkpoint: Path, speech: Path) -> dict[str, list[Any]]:
    return {
        "transcribe": ["transcribe", checkpoint, speech.parent / "u0.wav"],
        "evaluate": ["evaluate", checkpoint, speech],
        "convert": ["convert", checkpoint, checkpoint.with_suffix(".safetensors")],
    }


def assert_one_line(result: Any, status: int = 1) -> str:
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == status
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert result.stderr.rstrip("\n").isprintable()
    return result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_checkpoint(tmp_path: Path, speech: Path, kind: str) -> None:
    path = tmp_path / "model"
    path.write_bytes(KINDS[kind][0])
    for command in commands(path, speech).values():
        assert str(path) in assert_one_line(run(*command))


def test_damaged_checkpoints(tmp_path: Path, speech: Path) -> None:
    draw = random.Random(torch.initial_seed())
    path = tmp_path / "model"
    save(path, make_recognizer("ctc"))
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(header)] = draw.randrange(256)
        path.write_bytes(damaged)
        result = run("transcribe", path, speech.parent / "u0.wav")
        if result.exit_code:
            assert_one_line(result)
            refused += 1
    assert refused > 30


def test_paths_that_are_no_files_are_wrong_usage(tmp_path: Path, speech: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        for command in commands(path, speech).values():
            result = run(*command)
            assert result.exit_code == 2
            assert "Traceback" not in result.output


def test_too_little_memory(tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "model", make_recognizer("ctc"))
    monkeypatch.setattr(transcribe, "write_all", lambda *_: torch.empty(2**50))
    error = assert_one_line(run("transcribe", tmp_path / "model", speech.parent / "u0.wav"))
    assert error == "error: out of memory: 4194304.0 GiB more were asked for at once\n"


def test_faults_of_the_program_are_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    for fault in (RuntimeError("fault"), KeyError("fault"), AttributeError("fault"), AssertionError("fault")):
        with pytest.raises(type(fault), match="fault"), errors():
            raise fault
    assert capsys.readouterr().err == ""


def test_messages_cannot_move_the_cursor() -> None:
    assert one_line("a\n  b\tc\x1b[2J\x00\u202e") == "a b c\ufffd[2J\ufffd\ufffd"
    assert one_line("Größe: 3 · 4 — 한국어") == "Größe: 3 · 4 — 한국어"
