"""What all commands do alike: options as typed, pipes that close, versions, devices, what is not installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.main import get_command
from typer.testing import CliRunner

import asrkern
from asrkern.cli.app import app
from asrkern.cli.command import Command, _options, as_typed
from tests.cli.tiny import make_recognizer, write
from tests.training.tones import write_tones


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="asrkern")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("lm: the model's words; lm_case='upper' asks", "--lm: the model's words; --lm-case upper asks"),
        ("order 2; set discount_fallback to use", "order 2; set --discount-fallback to use"),
        ("blank: 'a' is taken; give blank=0 if it is", "--blank: 'a' is taken; give --blank 0 if it is"),
        ("/a/lm_case/old.pth: labels: none", "/a/lm_case/old.pth: --labels: none"),
        ("expected 1 to beam_width, 100", "expected 1 to --beam-width, 100"),
        ("received 'beam_width'; open(blank=...); lm.safetensors", None),
        ("the lm: tokenizer.labels: beam_width.x", None),
    ],
)
def test_options_are_named_as_they_are_typed(message: str, typed: str | None) -> None:
    names = ("lm", "lm_case", "discount_fallback", "blank", "labels", "beam_width")
    token = _options.set({name: f"--{name.replace('_', '-')}" for name in names})
    try:
        assert as_typed(message) == (typed or message)
    finally:
        _options.reset(token)
    assert as_typed(message) == message


def test_a_text_too_small_for_discounts(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b\n")
    result = run("lm", "build", tmp_path / "text.txt", "-o", tmp_path / "m.arpa")
    assert result.exit_code == 1
    assert "set --discount-fallback to use" in result.stderr and "discount_fallback" not in result.stderr


@pytest.mark.parametrize(("command", "unbuffered"), [("transcribe", ""), ("evaluate", "1")])
def test_a_reader_that_goes_away_ends_a_command_quietly(
    command: str, unbuffered: str, tmp_path: Path
) -> None:
    checkpoint = write(tmp_path, make_recognizer("ctc"))
    manifest = write_tones(tmp_path / "speech", 4)
    arguments = [sys.executable, "-m", "asrkern", command, str(checkpoint), str(manifest)]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "COLUMNS": "80"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, env=environment, **pipes) as process:
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 141, errors
    assert "error" not in errors.lower() and "Traceback" not in errors


def test_so_does_one_of_both_outputs(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b\n" * 9)
    arguments = ["lm", "build", tmp_path / "text.txt", "-o", tmp_path / "m.arpa", "--discount-fallback"]
    command = [sys.executable, "-m", "asrkern", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
    assert process.returncode == 141


def examples() -> list[str]:
    """Of each command, what its help shows."""
    top = get_command(app).commands
    commands = [*(command for command in top.values() if command.name != "lm"), *top["lm"].commands.values()]
    return [
        line for command in commands for line in re.findall(r"^ *Example: (asrkern .*)$", command.help, re.M)
    ]


def test_every_command_has_an_example() -> None:
    top = get_command(app).commands
    names = [*(name for name in top if name != "lm"), *(f"lm {name}" for name in top["lm"].commands)]
    assert [re.match(rf"asrkern {name}\b", line) is None for name, line in zip(names, examples())] == [
        False
    ] * len(names)


@pytest.mark.parametrize("example", examples())
def test_examples_are_right_usage(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Command, "invoke", lambda *_: print("would run"))
    (tmp_path / "recipes").mkdir()
    _, *arguments = shlex.split(example.partition(" < ")[0])
    for name in arguments:
        if re.fullmatch(r"[\w/]+(\.\w+)+", name):
            Path(name).write_text("")
    result = run(*arguments)
    assert result.exit_code == 0 and result.stdout == "would run\n", result.stderr


def test_wrong_usage_is_one_line() -> None:
    for arguments, said in (
        (("transcrib",), "No such command 'transcrib'. Did you mean 'transcribe'? (see asrkern --help)"),
        (("lm", "build", "--ordr", "4"), "--ordr"),
        (("transcribe",), "Missing argument 'CHECKPOINT' (see asrkern transcribe --help)"),
        (("--debug",), "Missing command (see asrkern --help)"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and result.stdout == ""
        assert (
            result.stderr.startswith("error: ") and said in result.stderr and result.stderr.count("\n") == 1
        )


def test_a_group_alone_shows_its_help() -> None:
    result = run("lm")
    assert result.exit_code == 2 and "interpolate" in result.stdout and result.stderr == ""


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_shows_where_an_error_comes_from(place: int, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("name: nothing")
    arguments = ["train", str(tmp_path / "recipe.toml"), "trainer.epochs=1"]
    result = run(*arguments)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    line = result.stderr
    debugged = run(*arguments[:place], "--debug", *arguments[place:])
    assert debugged.exit_code == 1 and debugged.stderr.endswith(line)
    assert debugged.stderr.startswith("Traceback") and "load_recipe" in debugged.stderr
    # For one command alone.
    assert run(*arguments).stderr == line


def test_a_fault_of_the_program_is_one_line_and_says_how_to_see_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrkern.models.list", lambda: {}["a\nb"])
    result = run("models")
    assert result.exit_code == 1
    assert result.stderr == "error: KeyError: 'a\\nb' (--debug shows where)\n"
    assert "in <lambda>" in run("models", "--debug").stderr


def test_the_version() -> None:
    result = run("--version")
    assert result.exit_code == 0 and result.stdout == f"asrkern {asrkern.__version__}\n"


@pytest.mark.parametrize("command", ["evaluate", "transcribe", "train", "sweep"])
def test_devices_that_are_not_there_are_refused_by_name(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("")
    count = torch.cuda.device_count()
    for device, message in (("cuda:99", "received 'cuda:99': torch sees"), ("tpu", "received 'tpu'")):
        result = run(command, tmp_path / "a", tmp_path / "a", "--device", device)
        assert result.exit_code == 2 and message in result.stderr
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    result = run(command, tmp_path / "a", tmp_path / "a", "--device", "cuda:2")
    assert "torch sees cuda:0, cuda:1" in result.stderr, count


def test_checkpoints_of_others_say_how_to_convert_them(tmp_path: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "a b.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    write_tones(tmp_path / "speech", 1)
    for name, typed in (
        ("a b.ckpt", "'{0}/a b.ckpt' '{0}/a b.safetensors'"),
        ("old.pth", "{0}/old.pth {0}/old.safetensors"),
    ):
        for command, given in (("transcribe", "speech"), ("evaluate", "speech/manifest.jsonl")):
            result = run(command, tmp_path / name, tmp_path / given)
            assert result.exit_code == 1
            assert f"asrkern convert {typed.format(tmp_path)}" in result.stderr, result.stderr
        (tmp_path / "labels.txt").write_text("_\na\n")
        result = run("decode", tmp_path / name, "--labels", tmp_path / "labels.txt")
        assert result.exit_code == 1 and "asrkern convert makes one of it" in result.stderr


def test_the_state_of_a_run_is_no_model(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "last.ckpt")
    result = run("transcribe", tmp_path / "last.ckpt", tmp_path / "a.wav")
    assert result.exit_code == 1 and f"{tmp_path}/best.safetensors" not in result.stderr
    write(tmp_path, make_recognizer("ctc")).rename(tmp_path / "best.safetensors")
    result = run("transcribe", tmp_path / "last.ckpt", tmp_path / "a.wav")
    assert f"received the state of a run; its models are {tmp_path}/best.safetensors" in result.stderr


def test_convert_writes_what_the_name_says(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "old.pth")
    result = run("convert", tmp_path / "old.pth", tmp_path / "new.pth")
    assert result.exit_code == 2 and "ends in .safetensors" in result.stderr
    assert not (tmp_path / "new.pth").exists()


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("transcribe", "pydantic", "recognizer"),
        ("convert", "safetensors", "recognizer"),
        ("evaluate", "lhotse", "train"),
        ("evaluate", "rapidfuzz", "train"),
        ("train", "lightning", "train"),
        ("sweep", "lightning", "train"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    command: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    (tmp_path / "a").write_text("")
    result = run(
        command, tmp_path / "a", *([] if command in ("train", "sweep") else [tmp_path / "b.safetensors"])
    )
    assert result.exit_code == 1
    assert result.stderr == f"error: {package} is not installed: pip install 'asrkern[{extra}]'\n"


def test_transcribe_needs_nothing_of_training(tmp_path: Path) -> None:
    """Without lhotse, Lightning, rapidfuzz, matplotlib."""
    checkpoint = write(tmp_path, make_recognizer("ctc"))
    write_tones(tmp_path / "speech", 1)
    code = (
        "import sys\n"
        "for name in ('lhotse', 'lightning', 'rapidfuzz', 'matplotlib'): sys.modules[name] = None\n"
        f"sys.argv = ['asrkern', 'transcribe', {str(checkpoint)!r}, {str(tmp_path / 'speech')!r}]\n"
        "from asrkern.__main__ import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{tmp_path}/speech/u0.wav\t")
