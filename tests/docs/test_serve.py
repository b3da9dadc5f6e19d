"""docs/serve.md: its programs run, and its limits are those of the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("starlette")

from asrkern.serve.limits import Limits
from tests.cli.tiny import speech
from tests.serve.live import serving, streaming_searches
from tests.training.tones import RATE

TEXT = (Path(__file__).parents[2] / "docs" / "serve.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=["recordings", "live"])
def test_programs(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in re.findall(r"^import (openai)$", program, re.MULTILINE):
        pytest.importorskip(package)
    soundfile.write(tmp_path / "speech.flac", speech(2).numpy(), RATE)
    monkeypatch.chdir(tmp_path)
    with serving(streaming_searches()) as live:
        # Of letters that the model has.
        exec(program.replace("127.0.0.1:8000", f"127.0.0.1:{live.port}"), {})
        text = live.post((tmp_path / "speech.flac").read_bytes()).json()["text"]
    said = capsys.readouterr().out.splitlines()
    assert said and all(" | " in line for line in said[:-1])
    assert said[-1] == text or "hotwords" in program


def test_limits() -> None:
    table = re.findall(r"^\| `--([\w-]+)`.*?\| (\d+) \|", TEXT, re.MULTILINE)
    assert {name.replace("-", "_"): int(value) for name, value in table} == vars(Limits())
