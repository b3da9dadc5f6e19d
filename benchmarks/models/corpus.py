"""How much of several single processes' speed a job over a corpus has: ``asrkern.corpus`` beside one process alone.

    python benchmarks/models/corpus.py                       # 2,000 generated recordings, as many workers as cores
    python benchmarks/models/corpus.py --recordings 10000 --workers 2 --engine ray

The model is a DeepSpeech2 with random weights; recordings have 1 to 6 seconds. The single process has one thread and gets
the same batches. What starting costs (imports, reading the model) is shown apart. Rows are compared first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import soundfile
import torch

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.corpus import LocalEngine, RayEngine, Worker, transcribe_corpus
from asrkern.recognizer import Transcriber, load
from benchmarks.models.long_audio import write_model

RATE = 16000


def write_corpus(folder: Path, recordings: int) -> Path:
    """Tones in noise, and their manifest."""
    draw, lines = numpy.random.default_rng(0), []
    for index in range(recordings):
        length = round(draw.uniform(1, 6) * RATE)
        tone = 0.1 * numpy.sin(numpy.arange(length) * draw.uniform(0.05, 0.5))
        soundfile.write(folder / f"{index}.wav", tone + 0.01 * draw.standard_normal(length), RATE)
        lines.append(json.dumps({"audio_filepath": f"{index}.wav", "duration": length / RATE}) + "\n")
    path = folder / "manifest.jsonl"
    path.write_text("".join(lines))
    return path


def open_transcriber(model: Path) -> Transcriber:
    return Transcriber(load(model), beam_width=16)


class Alone:
    """This process, as an engine."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        self._make_worker = make_worker

    def __enter__(self) -> Alone:
        torch.set_num_threads(1)
        self._worker = self._make_worker()
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, batches: Iterator[Any]) -> Iterator[Any]:
        yield from map(self._worker, batches)


def measure(engine: Any, manifest: Path, out: Path) -> tuple[float, float, list[str]]:
    """Seconds until the first rows, seconds of audio in a second from then on, and the rows."""
    began, first = time.perf_counter(), []

    def note(entries: int, seconds: float) -> None:
        if entries and not first:
            first.extend((time.perf_counter() - began, seconds))
        last[:] = time.perf_counter() - began, seconds

    last = [0.0, 0.0]
    with engine:
        transcribe_corpus(manifest, out, engine, {}, note)
    return first[0], (last[1] - first[1]) / (last[0] - first[0]), sorted((out / "transcripts.jsonl").open())


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if rows differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, model = write_corpus(folder, options.recordings), folder / "model.safetensors"
        write_model(model, RATE)
        make_worker = partial(Worker, partial(open_transcriber, model))
        make_engine = RayEngine if options.engine == "ray" else LocalEngine
        _, single, expected = measure(Alone(make_worker), manifest, folder / "alone")
        start, several, rows = measure(
            make_engine(make_worker, options.workers), manifest, folder / "several"
        )
    print(f"alone {single:.0f} s of audio a second")
    share = several / (options.workers * single)
    print(
        f"{options.workers} workers {several:.0f}, {share:.2f} of as many alone; first rows after {start:.1f} s"
    )
    print(f"{len(rows)} rows, {'the same' if rows == expected else 'DIFFERENT'}")
    return int(rows != expected)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
