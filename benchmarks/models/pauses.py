"""Long recordings cut at pauses beside the same in overlapping windows: errors and time.

    asrkern train recipes/s1_grid.toml -o runs/grid
    python benchmarks/models/pauses.py runs/grid/best.safetensors --clips $ASRKERN_DATA/grid/dev.jsonl \\
        --recordings $ASRKERN_DATA/longform/dev.jsonl

Clips are put one after another, with gaps of faint noise of several lengths; the recordings of other manifests are read as
they are, one after another. Each is transcribed in windows of 30 s, of which 3 s at each end are context, and in segments
that silero's network and the energy find. Seconds are medians of interleaved rounds, detection included, reading of files
not. The exit status is 1 if segments have more errors than windows, or take longer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.data import load_audio, make_detector, read_manifest
from asrkern.recognizer import Transcriber, load
from asrkern.training.metrics import ErrorCounts, in_words
from benchmarks._report import markdown_table
from benchmarks._timing import machine

METHODS = ("windows", "silero", "energy")
# Of the gaps: -60 dB.
LOUDNESS = 1e-3


class Task(NamedTuple):
    """Recordings, as [samples] each, with the texts that are said in them."""

    name: str
    recordings: list[Tensor]
    texts: list[str]


def read(manifest: Path, transcriber: Transcriber) -> tuple[list[Tensor], list[str]]:
    """A manifest's recordings and texts."""
    recognizer, utterances = transcriber.recognizer, list(read_manifest(manifest))
    samples = [
        load_audio(
            each.audio_path,
            recognizer.features.sample_rate,
            offset_seconds=each.offset_seconds,
            duration_seconds=each.duration_seconds,
        )
        for each in utterances
    ]
    return samples, [recognizer.text(each.text) for each in utterances]


def tiled(clips: Sequence[Tensor], gap_samples: int) -> Tensor:
    """One after another, with a gap before each."""
    draw = torch.Generator().manual_seed(0)
    return torch.cat(
        [part for clip in clips for part in (LOUDNESS * torch.randn(gap_samples, generator=draw), clip)]
    )


class Measured(NamedTuple):
    """wer: word error rate; seconds: median; cpu_seconds: of all threads, median."""

    wer: float
    seconds: float
    cpu_seconds: float


def measure(transcriber: Transcriber, task: Task, rounds: int) -> dict[str, Measured]:
    """What each method does."""
    rate = transcriber.recognizer.features.sample_rate
    detectors: dict[str, Any] = {
        name: None if name == "windows" else make_detector(name, rate) for name in METHODS
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    errors = {}
    for turn in range(rounds):
        for name in METHODS[turn % len(METHODS) :] + METHODS[: turn % len(METHODS)]:
            began, cpu_began = time.perf_counter(), time.process_time()
            found = [transcriber.recording(each, detector=detectors[name]).text for each in task.recordings]
            taken[name].append((time.perf_counter() - began, time.process_time() - cpu_began))
            errors[name] = ErrorCounts().add_all(found, task.texts).value("wer")
    return {name: Measured(errors[name], *map(median, zip(*taken[name]))) for name in METHODS}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if segments are worse or slower than windows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clips", type=Path, nargs="*", default=[], metavar="MANIFEST")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], metavar="MANIFEST")
    parser.add_argument("--gaps", type=float, nargs="+", default=[0, 2, 8], metavar="SECONDS")
    parser.add_argument("--beam-width", type=int, help="default: the best path")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(argv)
    transcriber = Transcriber(load(given.checkpoint), beam_width=given.beam_width)
    rate, tasks, alone = transcriber.recognizer.features.sample_rate, [], []
    for manifest in given.clips:
        clips, texts = read(manifest, transcriber)
        said = [found.text for found in transcriber.recordings(clips)]
        wer = in_words("wer", ErrorCounts().add_all(said, texts).value("wer"))
        alone.append(f"{manifest.parent.name}: {len(clips)} clips, each for itself: WER {wer}")
        tasks += [
            Task(
                f"{manifest.parent.name}, gaps of {gap:g} s",
                [tiled(clips, round(gap * rate))],
                [" ".join(texts)],
            )
            for gap in given.gaps
        ]
    tasks += [Task(manifest.parent.name, *read(manifest, transcriber)) for manifest in given.recordings]
    rows, failures = [], []
    for task in tasks:
        seconds = sum(map(len, task.recordings)) / rate
        found = measure(transcriber, task, given.rounds)
        windows = found["windows"]
        for name, each in found.items():
            row = {"recordings": task.name, "minutes": f"{seconds / 60:.1f}", "cut by": name}
            row |= {"WER": in_words("wer", each.wer), "s": f"{each.seconds:.3g}"}
            row |= {"× real time": f"{seconds / each.seconds:.0f}"}
            row |= {"of windows' time": f"{each.seconds / windows.seconds:.2f}"}
            rows.append(row | {"of its CPU time": f"{each.cpu_seconds / windows.cpu_seconds:.2f}"})
            if each.wer > windows.wer or each.seconds > windows.seconds:
                failures.append(f"{task.name}: {name} has more errors than windows, or takes longer")
    about = machine(torch.device("cpu"))
    print(f"{about['cpu']}, {about['threads']} threads; torch {about['torch']}")
    print(*alone, "", markdown_table(rows), *(f"FAILED: {each}" for each in failures), sep="\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
