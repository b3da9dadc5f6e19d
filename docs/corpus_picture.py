"""The picture of docs/corpus.md, made of a run in which a worker is killed, and then the command itself.

    python docs/corpus_picture.py

Two processes transcribe 1,200 recordings of tones in noise with a DeepSpeech2 of random weights. When a third of the rows
is written one of them is killed, at two thirds all, and the same job is begun again. Needs the extras recognizer and plot.
Exit status: 1 if there is not exactly one row for each recording.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from asrkern.corpus import LocalEngine, Worker, transcribe_corpus  # noqa: E402
from asrkern.corpus.plan import Job, Row  # noqa: E402
from asrkern.corpus.rows import ROWS  # noqa: E402
from benchmarks.models.corpus import RATE, open_transcriber, write_corpus  # noqa: E402
from benchmarks.models.long_audio import write_model  # noqa: E402

WORKERS = 2
INK, PALE, DONE, AGAIN, LOST = "#30363d", "#d0d7de", "#2b7a78", "#3a6ea5", "#c0392b"


@dataclass
class Diary:
    """What happens, as lines of a file that several processes write: the clock, the process, what, and a number."""

    path: Path

    def write(self, what: str, number: int = 0) -> None:
        """Add a line, whole."""
        line = json.dumps([time.monotonic(), os.getpid(), what, number]) + "\n"
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode())

    def read(self) -> list[Event]:
        """All lines."""
        return [Event(*json.loads(line)) for line in self.path.read_text().splitlines()]


class Event(NamedTuple):
    """A line of the diary. seconds: of a clock that all processes share."""

    seconds: float
    process: int
    what: str
    number: int


@dataclass
class Told:
    """Makes workers that write down when they begin and end."""

    model: Path
    diary: Diary

    def __call__(self) -> Callable[[Sequence[Job]], list[Row]]:
        self.diary.write("started")
        worker = Worker(partial(open_transcriber, self.model))
        self.diary.write("ready")
        return partial(self._rows, worker)

    def _rows(self, worker: Worker, jobs: Sequence[Job]) -> list[Row]:
        self.diary.write("begins", len(jobs))
        rows = worker(jobs)
        self.diary.write("ends", len(jobs))
        return rows


def drive(manifest: Path, model: Path, out: Path, diary: Diary) -> None:
    """The job, as ``asrkern transcribe --manifest`` does it."""
    diary.write("command")
    with LocalEngine(Told(model, diary), WORKERS) as engine:
        transcribe_corpus(manifest, out, engine, {}, lambda entries, seconds: diary.write("rows", entries))


def start(*job: Any) -> Any:
    """The job in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=drive, args=job)
    process.start()
    return process


def wait_for_rows(diary: Diary, rows: int, process: Any) -> None:
    """Until so many are written."""
    while not any(event.what == "rows" and event.number >= rows for event in diary.read()):
        if not process.is_alive():
            raise ChildProcessError(f"expected {rows} rows, received exit status {process.exitcode}")
        time.sleep(0.05)


def at_work(diary: Diary) -> int:
    """A worker that has begun a batch and not ended it."""
    while True:
        last = {event.process: event for event in diary.read() if event.what in ("begins", "ends")}
        if begun := [event for event in last.values() if event.what == "begins"]:
            return max(begun).process
        time.sleep(0.01)


def run(manifest: Path, model: Path, out: Path, diary: Diary, recordings: int) -> None:
    """The job with its accidents."""
    job = manifest, model, out, diary
    first = start(*job)
    wait_for_rows(diary, recordings // 3, first)
    victim = at_work(diary)
    os.kill(victim, signal.SIGKILL)
    diary.write("killed", victim)
    wait_for_rows(diary, 2 * recordings // 3, first)
    first.kill()
    diary.write("killed", first.pid)
    first.join()
    time.sleep(1)
    second = start(*job)
    second.join()
    if second.exitcode:
        raise ChildProcessError(f"expected a job that ends, received exit status {second.exitcode}")


def draw(events: Sequence[Event], recordings: int, path: Path) -> None:
    """Above, what each process does; below, how many rows are written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    began = events[0].seconds
    commands = [event.process for event in events if event.what == "command"]
    lanes = list(dict.fromkeys(event.process for event in events if event.what == "started"))
    killed = {event.number: event.seconds - began for event in events if event.what == "killed"}
    restart = next(event.seconds for event in events if event.process == commands[1]) - began
    figure = Figure((9, 5.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.2))
    for lane, process in enumerate(lanes):
        mine = [event for event in events if event.process == process]
        # Its rows are written as long as it lives, and the command that it is of.
        first = mine[0].seconds - began < restart
        end = min(killed.get(process, math.inf), killed[commands[0]] if first else math.inf)
        for event, following in zip_longest(mine, mine[1:]):
            at = event.seconds - began
            until = following.seconds - began if following else end
            if event.what in ("started", "begins") and until < math.inf:
                colour = PALE if event.what == "started" else DONE if until < end else LOST
                above.barh(lane, until - at, 0.6, at, color=colour, edgecolor="white", linewidth=0.5)
        if process in killed:
            above.plot(killed[process], lane, "x", color=LOST, markersize=10, markeredgewidth=3)
    above.set_yticks(range(len(lanes)), [f"worker {lane + 1}" for lane in range(len(lanes))])
    above.invert_yaxis()
    above.set_title(
        "Batches of two worker processes (pale: reading the model; red: lost)",
        loc="left", fontsize=10,
    )  # fmt: skip
    for command, colour in zip(commands, (DONE, AGAIN)):
        rows = [e for e in events if e.process == command and e.what == "rows"]
        below.step(
            [e.seconds - began for e in rows],
            [e.number for e in rows],
            where="post",
            color=colour,
            linewidth=2,
        )
    [worker] = (process for process in killed if process not in commands)
    for at, text, side, height in (
        (killed[worker], "a worker is killed: \nanother takes its place ", "right", 0.92),
        (killed[commands[0]], "the command is killed ", "right", 0.74),
        (restart, " the same command again:\n it does what has no row", "left", 0.12),
    ):
        for axes in (above, below):
            axes.axvline(at, color=INK, linewidth=0.8, linestyle=":")
        below.text(at, height * recordings, text, ha=side, va="center", fontsize=9, color=INK)
    below.axhline(recordings, color=PALE, linewidth=1)
    below.set_ylim(0, 1.06 * recordings)
    below.set_title(
        f"Rows of transcripts.jsonl: at the end one for each of {recordings} recordings",
        loc="left",
        fontsize=10,
    )
    below.set_xlabel("seconds")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=9)
    figure.savefig(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if rows are missing, too many, or have errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=HERE / "pictures" / "corpus.png")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, model = write_corpus(folder, given.recordings), folder / "model.safetensors"
        write_model(model, RATE)
        diary = Diary(folder / "diary")
        diary.path.touch()
        run(manifest, model, folder / "out", diary, given.recordings)
        rows = [json.loads(line) for line in (folder / "out" / ROWS).read_text().splitlines()]
        events = diary.read()
    entries = sorted(row["entry"] for row in rows if "error" not in row)
    if entries != list(range(given.recordings)):
        print(f"FAILED: {len(rows)} rows, {len(set(entries))} recordings of {given.recordings}")
        return 1
    draw(events, given.recordings, given.out)
    print(f"{len(rows)} rows of {given.recordings} recordings", given.out, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
