"""Workers that die, and a corpus for them. Other processes import this."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asrkern.corpus import LocalEngine, Worker, transcribe_corpus
from asrkern.corpus.plan import Job, Row
from asrkern.corpus.rows import RowFile
from asrkern.recognizer import Transcriber, load
from tests.cli.tiny import make_recognizer, write
from tests.training.tones import write_tones


def open_transcriber(checkpoint: Path) -> Transcriber:
    return Transcriber(load(checkpoint), beam_width=8)


def make_corpus(folder: Path, utterances: int) -> tuple[Path, Path]:
    """A manifest and a checkpoint."""
    return write_tones(folder, utterances), write(folder, make_recognizer("ctc"))


@dataclass
class Mortal:
    """A worker that is killed when it has an entry: once, where the file ``killed`` is given, else each time."""

    checkpoint: Path
    entry: int
    killed: Path | None = None

    def __call__(self) -> Callable[[Sequence[Job]], list[Row]]:
        return partial(self._rows, Worker(partial(open_transcriber, self.checkpoint)))

    def _rows(self, worker: Worker, jobs: Sequence[Job]) -> list[Row]:
        if any(job.entry == self.entry for job in jobs) and self._dies():
            os.kill(os.getpid(), signal.SIGKILL)
        return worker(jobs)

    def _dies(self) -> bool:
        if self.killed is None:
            return True
        try:
            self.killed.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass
class Stillborn:
    """Dies, or fails, before it is a worker."""

    how: str

    def __call__(self) -> Worker:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("no such model")


class Niceness:
    """Rows whose text is the niceness of the worker's process."""

    def __call__(self) -> Callable[[Sequence[Job]], list[Row]]:
        return lambda jobs: [{"entry": job.entry, "text": str(os.nice(0))} for job in jobs]


def rows_of(out: Path) -> list[Row]:
    """In the order of their entries."""
    lines = (out / "transcripts.jsonl").read_text("utf-8").splitlines()
    return sorted(map(json.loads, lines), key=lambda row: row["entry"])


def run(manifest: str, checkpoint: str, out: str) -> None:
    """A driver that says on standard output how many rows there are."""
    make_worker = partial(Worker, partial(open_transcriber, Path(checkpoint)))
    with LocalEngine(make_worker, 2) as engine:
        transcribe_corpus(manifest, out, engine, {}, lambda entries, seconds: print(entries, flush=True))


def run_and_die() -> None:
    """The command that is killed when it has written rows with a text."""
    from asrkern.__main__ import main

    append = RowFile.append

    def and_die(self: RowFile, rows: Sequence[Row]) -> None:
        append(self, rows)
        if any("text" in row for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)

    RowFile.append = and_die  # type: ignore[method-assign]
    main()
