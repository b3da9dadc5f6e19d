"""The command: it serves until it is told to end, and says in one line why it does not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3
from typer.testing import CliRunner
from websockets.sync.client import connect

from asrkern.cli.app import app
from tests.cli.tiny import make_deepspeech2, make_recognizer, speech, write, write_words
from tests.serve.live import as_file, as_pcm
from tests.training.tones import RATE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recognizer = make_deepspeech2()
    write_words(recognizer)
    return write(tmp_path_factory.mktemp("model"), recognizer)


def start(
    checkpoint: Path, *options: str, before: Any = None, **environment: str
) -> tuple[subprocess.Popen[str], str]:
    """The process, and the address that it serves at; before: called in the process before the command begins."""
    command = [sys.executable, "-m", "asrkern", "serve", str(checkpoint), "--beam-width", "8", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={**os.environ, **environment}, preexec_fn=before, **pipes)
    line = process.stdout.readline()
    assert " serves" in line, process.communicate()
    return process, line.split()[0]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["serve", *map(str, arguments)])


def test_killed_and_started_again_at_the_same_port(checkpoint: Path) -> None:
    audio, texts, port = as_file(speech(2)), [], "0"
    for end in (signal.SIGKILL, signal.SIGINT):
        process, url = start(checkpoint, "--port", port, ASRKERN_API_KEY="sesame")
        port = str(urllib3.util.parse_url(url).port)
        with process:
            headers = {"Authorization": "Bearer sesame"}
            path = f"{url}v1/audio/transcriptions"
            assert urllib3.request("POST", path, fields={"file": ("a", audio)}).status == 401
            answer = urllib3.request("POST", path, fields={"file": ("a", audio)}, headers=headers)
            texts.append(answer.json()["text"])
            with connect(f"ws://127.0.0.1:{port}/v1/audio/stream", additional_headers=headers) as websocket:
                websocket.send(json.dumps({"type": "start", "rate": RATE}))
                websocket.send(as_pcm(speech(1)))
                assert json.loads(websocket.recv())["type"] == "ready"
                process.send_signal(end)
                _, errors = process.communicate(timeout=60)
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[end], errors
        assert errors == ""
    assert texts[0] and len(set(texts)) == 1


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_an_interrupt_ends_it_however_it_was_started(checkpoint: Path, handler: signal.Handlers) -> None:
    """Shells start what runs behind them with interrupts ignored."""
    process, url = start(checkpoint, "--port", "0", before=lambda: signal.signal(signal.SIGINT, handler))
    with process:
        # Before it answers, an interrupt that is ignored is lost.
        assert urllib3.request("GET", f"{url}healthz").status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def test_a_port_that_is_taken(checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(checkpoint, "--port", port)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert f"error: --port: expected one that is free at 127.0.0.1, received {port}: " in result.stderr


def test_what_cannot_be_served(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, "--host", "no.such.host.invalid")
    assert (
        result.exit_code == 1
        and "--host: expected an address of this machine, received 'no.such" in result.stderr
    )
    result = run(write(tmp_path, make_recognizer("classify")))
    assert result.exit_code == 1 and "expected one that writes what it hears" in result.stderr
    for option in (("--port", "65536"), ("--streams", "0"), ("--device", "tpu")):
        assert run(checkpoint, *option).exit_code == 2
