"""A server in a thread of the test, and its clients."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import torch
import urllib3
from torch import Tensor
from websockets.sync.client import connect

from asrkern.data import Detector
from asrkern.recognizer import Recognizer, StreamTranscriber, Transcriber
from asrkern.serve.app import make_app
from asrkern.serve.limits import Limits
from asrkern.serve.searches import Searches
from asrkern.serve.server import listen, make_server
from tests.cli.tiny import make_deepspeech2, write_words
from tests.training.tones import RATE

TRANSCRIPTIONS, STREAM = "/v1/audio/transcriptions", "/v1/audio/stream"


@dataclass
class Live:
    """A server that runs."""

    port: int
    searches: Searches

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request("GET", self.url + path, headers=headers, retries=False)

    def post(self, audio: bytes, *fields: tuple[str, Any], name: str = "a.wav", **headers: str) -> Any:
        form = [("file", (name, audio)), *fields]
        url = self.url + TRANSCRIPTIONS
        return urllib3.request("POST", url, fields=form, headers=headers, retries=False)

    def stream(self, **options: Any) -> Any:
        """A connection, which is a context manager."""
        return connect(f"ws://127.0.0.1:{self.port}{STREAM}", **options)

    def raw(self, *parts: bytes) -> socket.socket:
        """A connection on which so much has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), 30)
        for part in parts:
            connection.sendall(part)
        return connection

    def count(self, name: str) -> float:
        """A figure of /metrics."""
        return float(re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").data.decode(), re.M)[1])

    def wait_for(self, name: str, value: float) -> None:
        """Ask until a figure is this."""
        end = time.monotonic() + 30
        while (now := self.count(name)) != value:
            assert time.monotonic() < end, f"{name} is {now}"


@contextmanager
def serving(searches: Searches, limits: Limits | None = None, **options: Any) -> Iterator[Live]:
    app = make_app(searches, limits or Limits(), **options)
    with listen("127.0.0.1", 0) as bound:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield Live(bound.getsockname()[1], searches)
        finally:
            server.should_exit = True
            thread.join()


def streaming_searches(**options: Any) -> Searches:
    recognizer = make_deepspeech2()
    write_words(recognizer)
    return Searches(recognizer, beam_width=8, **options)


def as_file(samples: Tensor, rate: int = RATE, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.numpy(), rate, format=form, subtype=subtype)
    return file.getvalue()


def as_pcm(samples: Tensor) -> bytes:
    return (samples.clamp(-1, 1) * 32767).numpy().astype("<i2").tobytes()


def from_pcm(pcm: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(pcm, "<i2").astype(np.float32) / 32768)


def error_of(response: urllib3.BaseHTTPResponse, status: int, message: str) -> dict[str, Any]:
    """The error of a response that has this status, and a message that matches."""
    error = json.loads(response.data)["error"]
    assert response.status == status, error
    assert re.search(message, error["message"]), error
    assert error["code"] == str(status)
    return error


def expected(
    recognizer: Recognizer, samples: Tensor, detector: Detector | None = None, **options: Any
) -> Any:
    return Transcriber(recognizer, **{"beam_width": 8, **options}).recording(samples, detector=detector)


def expected_live(recognizer: Recognizer, pcm: bytes, **options: Any) -> Any:
    listener = StreamTranscriber(Transcriber(recognizer, **{"beam_width": 8, **options}))
    return list(listener([from_pcm(pcm)]))[-1].transcript


def rounded(words: Any) -> list[dict[str, Any]]:
    """Words of a transcript as answers have them."""
    return [
        {
            "word": word.text,
            "start": round(word.start_seconds, 3),
            "end": round(word.end_seconds, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in words
    ]
