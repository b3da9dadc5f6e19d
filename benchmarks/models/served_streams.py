"""`asrkern serve` under load: how long after a chunk of live speech its result comes, with many streams at once.

    python benchmarks/models/served_streams.py
    python benchmarks/models/served_streams.py --checkpoint best.safetensors --streams 64 --seconds 60

A server in a process of its own and clients in this one, on the same CPUs. Each client sends the shipped utterances, one
after another, in real time. A chunk's latency is the time from sending it to the partial result that says it has been
heard; the model's own delay, which `benchmarks/models/streaming.py` tells, is not part of it. Some clients vanish on the
way. All others must get the text of the same audio in one piece, else the exit status is 1; so it is if the 95th
percentile is above the limit.

Without --checkpoint the model is DeepSpeech2's preset small, unidirectional, with random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import asrkern
from asrkern._optional import require
from asrkern.data import load_audio, read_manifest
from asrkern.models import build
from asrkern.recognizer import (
    FeatureSettings,
    Recognizer,
    StreamTranscriber,
    TextNormalization,
    Transcriber,
    save,
)
from asrkern.recognizer.tokenizer import TokenizerSettings, make_tokenizer
from benchmarks._timing import machine
from benchmarks.rtf import SHIPPED, calibrate

RATE = 16000
OPTIONS = {"bidirectional": False, "lookahead_context": 20}


class Client(NamedTuple):
    """What one got: the seconds that each chunk waited, and the text; None of one that vanished."""

    waited: list[float]
    text: str | None


def make_checkpoint(path: Path, samples: torch.Tensor) -> None:
    """The preset with random weights."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(TokenizerSettings(), "ctc", [])
    options = {**OPTIONS, "labels": list(tokenizer.labels)}
    model = build("deepspeech2_small", **options).eval()
    features = FeatureSettings(normalization="running")
    calibrate(model, features.make(), [samples])
    save(
        path, Recognizer(model, "deepspeech2_small", options, "ctc", tokenizer, features, TextNormalization())
    )


async def speak(url: str, pcm: bytes, chunk: int, delay: float, vanishes: bool) -> Client:
    """One client. It sends half, if it vanishes, and is gone without a word."""
    await asyncio.sleep(delay)
    sent: list[float] = []
    waited: list[float] = []
    starts = range(0, len(pcm) // (2 if vanishes else 1), chunk)
    async with require("websockets.asyncio.client", "serve").connect(url) as websocket:
        await websocket.send(json.dumps({"type": "start", "rate": RATE}))
        await websocket.recv()

        async def send() -> None:
            first = time.perf_counter()
            for number, start in enumerate(starts):
                # A microphone has a chunk when its last sample is there.
                due = first + (number + 1) * chunk / (2 * RATE)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                sent.append(time.perf_counter())
                await websocket.send(pcm[start : start + chunk])
            if not vanishes:
                await websocket.send('{"type": "end"}')

        sending = asyncio.create_task(send())
        while True:
            message = json.loads(await websocket.recv())
            now = time.perf_counter()
            if message["type"] == "final":
                return Client(waited, message["text"])
            heard = -(-round(message["seconds"] * 2 * RATE) // chunk)
            waited += [now - at for at in sent[len(waited) : heard]]
            if vanishes and len(waited) == len(starts):
                await sending
                websocket.transport.abort()
                return Client(waited, None)


def expected_text(checkpoint: Path, pcm: bytes, beam_width: int) -> str:
    """The same audio in one piece."""
    recognizer = asrkern.load(checkpoint)
    recognizer.move("cpu")
    listener = StreamTranscriber(Transcriber(recognizer, beam_width=beam_width))
    samples = torch.from_numpy(np.frombuffer(pcm, "<i2").astype(np.float32) / 32768)
    return [*listener([samples])][-1].transcript.text


async def load(port: str, pcm: bytes, arguments: argparse.Namespace) -> list[Client]:
    """All clients, which begin one after another within a second."""
    url, chunk = f"ws://127.0.0.1:{port}/v1/audio/stream", 2 * RATE * arguments.chunk_ms // 1000
    count = arguments.streams
    clients = [speak(url, pcm, chunk, i / count, i < arguments.vanish) for i in range(count)]
    return await asyncio.gather(*clients)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="of a model that hears live speech")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--vanish", type=int, default=4, help="so many of them go half way")
    parser.add_argument("--seconds", type=float, default=30.0, help="of audio for each")
    parser.add_argument("--chunk-ms", type=int, default=100)
    parser.add_argument("--beam-width", type=int, default=100)
    parser.add_argument("--limit-ms", type=float, default=500.0, help="of the 95th percentile")
    arguments = parser.parse_args(argv)
    sounds = [load_audio(each.audio_path, RATE) for each in read_manifest(SHIPPED)]
    samples = torch.cat(sounds)
    samples = samples.repeat(int(arguments.seconds * RATE / len(samples)) + 1)[
        : int(arguments.seconds * RATE)
    ]
    pcm = (samples.clamp(-1, 1) * 32767).numpy().astype("<i2").tobytes()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = arguments.checkpoint or Path(folder) / "small.safetensors"
        if arguments.checkpoint is None:
            make_checkpoint(checkpoint, sounds[0])
        expected = expected_text(checkpoint, pcm, arguments.beam_width)
        options = [
            "--port",
            "0",
            "--beam-width",
            str(arguments.beam_width),
            "--streams",
            str(arguments.streams),
        ]
        command = [sys.executable, "-m", "asrkern", "serve", str(checkpoint), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                port = server.stdout.readline().split("/")[2].rpartition(":")[2]
                clients = asyncio.run(load(port, pcm, arguments))
            finally:
                server.terminate()
    waited = np.array([seconds for client in clients for seconds in client.waited])
    p50, p95 = (1000 * float(np.percentile(waited, q)) for q in (50, 95))
    about = machine(torch.device("cpu"))
    print(
        f"{about['cpu']}, {torch.get_num_threads()} threads; torch {about['torch']}\n"
        f"{arguments.streams} streams of {arguments.seconds:g} s in chunks of {arguments.chunk_ms} ms, beam width "
        f"{arguments.beam_width}, {arguments.vanish} of them vanish: {len(waited)} chunks, result after p50 {p50:.0f} ms, "
        f"p95 {p95:.0f} ms, at most {1000 * waited.max():.0f} ms"
    )
    lost = sum(client.text not in (expected, None) for client in clients)
    if lost or p95 > arguments.limit_ms:
        print(f"FAILED: {lost} streams got another text; p95 is to be at most {arguments.limit_ms:g} ms")
        return 1
    print("Each stream that stayed got the text of the same audio in one piece.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
