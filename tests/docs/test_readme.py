"""README's commands are there and start, and its example of a Python call runs."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from asrkern.cli.app import app
from benchmarks.decoder import ctc_beam, ngram
from tests.cli.tiny import make_deepspeech2, speech, write, write_words
from tests.training.tones import RATE

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# In code, in lines or in blocks.
CODE = "\n".join(map("".join, re.findall(r"`([^`\n]+)`|```sh\n(.*?)```", README, re.DOTALL)))
BENCHMARKS = sorted(set(re.findall(r"python benchmarks/([\w/]+)\.py", CODE)))
COMMANDS = sorted(set(re.findall(r"\basrkern ((?:lm )?[a-z]+)\b(?!\.)", CODE)))


def test_there_are_commands() -> None:
    assert (
        {
            "rtf",
            "ops/run",
            "peers/layers",
            "models/bits",
            "models/beam_search",
            "models/training",
            "models/training_step",
            "decoder/ctc_beam",
            "decoder/emissions",
            "decoder/ngram",
            "decoder/word_times",
        }
        >= set(BENCHMARKS)
        >= {"rtf"}
    )
    assert {
        "train",
        "sweep",
        "evaluate",
        "transcribe",
        "decode",
        "lm build",
        "convert",
        "prepare",
        "models",
    } <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_their_options(command: str) -> None:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0, result.output
    for mentioned in re.findall(rf"`asrkern {command}\b([^`]*)`", README):
        for option in re.findall(r"--[a-z][\w-]*", mentioned):
            assert re.search(rf"{option}\b", result.stdout), option


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"benchmarks.{name}".replace("/", "."))
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        module.main(["--help"])


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CMakeLists.txt", ".ci/run", "asrkern"]
)
def test_benchmarks_that_are_named_are_there(document: str) -> None:
    path = ROOT / document
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        for named in re.findall(r"\bbenchmarks/[\w/]+\.(?:py|md|png)\b", file.read_text(encoding="utf-8")):
            assert (ROOT / named).is_file(), f"{file}: {named}"


def test_benchmarks_run_without_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ASRKERN_DATA", raising=False)
    monkeypatch.setattr(ngram, "MADE_SENTENCES", 8000)
    monkeypatch.setattr(ctc_beam, "MADE_SENTENCES", 8000)
    assert ngram.main(["--held-out", "50", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Without a text one is made up") and "7950 sentences" in printed
    assert ctc_beam.main(["--quick", "--rounds", "1", "--only", "free,lm,pruned,hotwords"]) == 0
    assert capsys.readouterr().out.startswith("Without --data: an utterance and a text are made up")


def test_rtf_says_first_what_it_is_doing(tmp_path: Path) -> None:
    """Before the imports, which take longer than people wait for a first line."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('numpy is imported')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "benchmarks" / "rtf.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stderr == "rtf.py: importing torch and asrkern\nnumpy is imported\n"


def test_python_is_python_and_the_call_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for block in blocks:
        ast.parse(block)
    [call] = [block for block in blocks if "asrkern.load(" in block]
    recognizer = make_deepspeech2()
    write_words(recognizer)
    write(tmp_path, recognizer).rename(tmp_path / "best.safetensors")
    soundfile.write(tmp_path / "speech.flac", speech(2).numpy(), RATE)
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(call, found)
    said, transcript = capsys.readouterr().out.splitlines(), found["transcript"]
    words = [line for line in said if re.fullmatch(r"\d+\.\d\d \d+\.\d\d \S+ [01]\.\d\d", line)]
    assert found["text"] and len(words) == len(transcript.words) > 0
    # Two seconds in chunks of 0.2, and the end; what stays of each is the text.
    live = [re.fullmatch(r"(\d\.\d) s: (.*) \| (.*)", line) for line in said[len(words) :]]
    assert [each[1] for each in live] == [f"{min(t, 10) / 5:.1f}" for t in range(1, 12)]
    assert " ".join(filter(None, (each[2] for each in live))) == transcript.text and not live[-1][3]


def test_extras_are_those_of_the_project() -> None:
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = {name for group in re.findall(r"'\.\[([\w,]+)\]'", README) for name in group.split(",")}
    assert named and all(f"\n{name} = [" in declared for name in named)
