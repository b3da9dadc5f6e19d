"""What ``asrkern transcribe`` is given, mixed as people have it: recordings, folders, manifests, standard input."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from asrkern.data import Utterance

STDIN = Path("-")
MANIFESTS = (".jsonl", ".json", ".csv", ".tsv")
# What is taken of a folder. Those of the last lines are read by PyAV; without it each file is named as an error.
RECORDINGS = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64",
    ".rf64", ".sph", ".voc",
    ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".aac", ".wma", ".wmv", ".amr", ".webm", ".mkv", ".mka", ".avi", ".flv",
    ".mpg", ".mpeg", ".wv", ".ape",
)  # fmt: skip

# Manifests round durations.
_TOLERANCE_SECONDS = 0.05


@dataclass(frozen=True)
class Input:
    """One recording, or a part of one.

    Attributes:
        shown: as results name it; a part as in media fragments, ``a.wav#t=1.5,3.25`` (seconds).
        name: of its own file of results: a path in the folder ``--out``, without an ending.
        load: samples at a rate in Hz, as :func:`asrkern.data.load_audio` returns them.
    """

    shown: str
    name: str
    load: Callable[[int], Tensor]


def find_inputs(paths: Sequence[Path], raw: dict[str, Any], left_out: list[Exception]) -> list[Input]:
    """What is there, in the order given; folders sorted, with all their folders, hidden ones apart.

    Args:
        paths: files, folders, manifests by their endings (also with .gz), or "-".
        raw: ``encoding``, ``channels`` and ``original_rate`` of standard input.
        left_out: gets the errors of folders and manifests, and of single lines of these.
    """
    found: list[Input] = []
    for path in paths:
        try:
            found += _expanded(path, raw, left_out)
        except (OSError, ValueError) as error:
            left_out.append(error)
    return found


def _expanded(path: Path, raw: dict[str, Any], left_out: list[Exception]) -> Iterator[Input]:
    if path == STDIN:
        yield Input("-", "stdin", partial(_standard_input, raw))
    elif path.is_dir():
        yield from _folder(path)
    elif path.name.removesuffix(".gz").endswith(MANIFESTS):
        yield from _manifest(path, left_out)
    else:
        yield Input(str(path), path.stem, partial(_load, path))


def _load(path: Path, sample_rate: int, **part: float) -> Tensor:
    from asrkern.data import load_audio

    return load_audio(path, sample_rate, **part)


def _standard_input(raw: dict[str, Any], sample_rate: int) -> Tensor:
    import torch

    from asrkern.data import read_stream

    samples = [torch.empty(0), *read_stream(sys.stdin.buffer, sample_rate, **raw)]
    return torch.cat(samples)


def _folder(folder: Path) -> Iterator[Input]:
    count = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() in RECORDINGS and path.is_file() and not hidden:
            count += 1
            yield Input(str(path), str(inside.with_suffix("")), partial(_load, path))
    if not count:
        raise ValueError(
            f"{folder}: expected recordings in the folder, received none ({' '.join(RECORDINGS)})"
        )


def _manifest(path: Path, left_out: list[Exception]) -> Iterator[Input]:
    from asrkern.data.manifest import iterate_manifest

    entries = list(iterate_manifest(path, left_out))
    times = Counter(utterance.audio_path for _, utterance in entries)
    for where, utterance in entries:
        recording = utterance.audio_path
        if recording is None:
            left_out.append(ValueError(f"{where}: expected a recording, received stored features"))
        else:
            yield _part(utterance, recording, utterance.offset_seconds > 0 or times[recording] > 1)
    if not entries and not left_out:
        raise ValueError(f"{path}: expected at least one utterance, received none")


def _part(utterance: Utterance, path: Path, is_part: bool) -> Input:
    start = utterance.offset_seconds
    load = partial(
        _load,
        path,
        offset_seconds=start,
        duration_seconds=utterance.duration_seconds,
        tolerance_seconds=_TOLERANCE_SECONDS,
    )
    if not is_part:
        return Input(str(path), path.stem, load)
    first, last = f"{start:.10g}", f"{start + utterance.duration_seconds:.10g}"
    return Input(f"{path}#t={first},{last}", f"{path.stem}_{first}_{last}", load)
