"""How much of several single processes' speed a job over a corpus has: ``asrkern.corpus`` beside one process alone.

    python benchmarks/models/corpus.py                       # 2,000 generated recordings, as many workers as cores
    python benchmarks/models/corpus.py --recordings 10000 --workers 2 --engine local ray --kill

The model is a DeepSpeech2 with random weights; recordings have 1 to 6 seconds. The single process has one thread and gets
the same batches. What starting costs (imports, reading the model) is shown apart. With --kill one worker of each engine is
killed in the middle of its work. Exit status: 1 if the rows are not those of the single process, one for each recording.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import soundfile
import torch

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.corpus import LocalEngine, RayEngine, Worker, transcribe_corpus
from asrkern.corpus.plan import Job, Row
from asrkern.recognizer import Transcriber, load
from benchmarks.models.long_audio import write_model

RATE = 16000
ENGINES = {"local": LocalEngine, "ray": RayEngine}


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


@dataclass
class Mortal:
    """Makes workers, of which the first that gets an entry is killed.

    killed: the file that says so.
    """

    make_worker: Callable[[], Worker]
    entry: int
    killed: Path

    def __call__(self) -> Callable[[Sequence[Job]], list[Row]]:
        return partial(self._rows, self.make_worker())

    def _rows(self, worker: Worker, jobs: Sequence[Job]) -> list[Row]:
        if any(job.entry == self.entry for job in jobs) and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return worker(jobs)


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
    """Exit status: 0, or 1 if rows differ or nobody was killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--engine", choices=ENGINES, nargs="+", default=["local"])
    parser.add_argument(
        "--kill", action="store_true", help="a worker, when it has the recording in the middle"
    )
    options = parser.parse_args(argv)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, model = write_corpus(folder, options.recordings), folder / "model.safetensors"
        write_model(model, RATE)
        make_worker = partial(Worker, partial(open_transcriber, model))
        _, single, expected = measure(Alone(make_worker), manifest, folder / "alone")
        print(f"alone {single:.0f} s of audio a second", flush=True)
        for engine in options.engine:
            killed = folder / f"{engine}.killed"
            make = Mortal(make_worker, options.recordings // 2, killed) if options.kill else make_worker
            start, several, rows = measure(ENGINES[engine](make, options.workers), manifest, folder / engine)
            share = several / (options.workers * single)
            same = rows == expected and killed.exists() == options.kill
            failed |= not same
            print(
                f"{engine}: {options.workers} workers {several:.0f}, {share:.2f} of as many alone; first rows after "
                f"{start:.1f} s; {len(rows)} rows, {'the same' if same else 'DIFFERENT'}"
                + (", a worker was killed" if killed.exists() else ""),
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
