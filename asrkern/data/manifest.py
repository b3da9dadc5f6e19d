"""Manifests in NeMo's form: one JSON object a line."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest. Exactly one of ``audio_path`` and ``features_path`` is set.

    Attributes:
        audio_path: the recording.
        features_path: an ``.npz`` archive with computed features, for corpora without waveforms.
        features_key: the array's name in it.
        duration_seconds: length of the utterance.
        offset_seconds: where it starts in the recording.
        text: the transcript; empty if the manifest has none.
        extra: every other field of the line (``speaker``, ``label``, ``words``, ...).
    """

    audio_path: Path | None
    duration_seconds: float
    text: str = ""
    offset_seconds: float = 0.0
    features_path: Path | None = None
    features_key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(path: str | os.PathLike[str], left_out: list[Exception] | None = None) -> list[Utterance]:
    """Read a JSON-lines manifest.

    A line has ``audio_filepath`` or ``features_filepath`` (``"archive.npz#key"``), relative to the manifest
    or absolute, and ``duration`` in seconds; it may have ``text``, ``offset`` in seconds and anything else.
    Blank lines are skipped.

    Args:
        path: the manifest.
        left_out: a list that gets the error of each line that is wrong, which is then left out; None to raise it.

    Raises:
        FileNotFoundError: no such manifest, or a line names a file that does not exist.
        ValueError: a line that is not a JSON object, or a field that is missing or has a wrong value; also
            a manifest without any utterance. The message has the line number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a manifest, received {str(path)!r}, which is not a file")
    utterances = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            utterances.append(_parse_line(line, path.parent, f"{path}, line {number}"))
        except (FileNotFoundError, ValueError) as error:
            if left_out is None:
                raise
            left_out.append(error)
    if not utterances:
        raise ValueError(f"path: expected at least one utterance, received none in {str(path)!r}")
    return utterances


def _parse_line(line: bytes, folder: Path, where: str) -> Utterance:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected a JSON object, received {line[:60]!r} ({error})") from None
    sources = {"audio_filepath", "features_filepath"}
    if not isinstance(entry, dict) or len(sources & entry.keys()) != 1:
        raise ValueError(
            f"{where}: expected a JSON object with either audio_filepath or features_filepath, "
            f"received {line[:60]!r}"
        )
    audio_path = features_path = features_key = None
    if "audio_filepath" in entry:
        audio_path = folder / _string(entry.pop("audio_filepath"), "audio_filepath", where)
    else:
        value = _string(entry.pop("features_filepath"), "features_filepath", where)
        archive, separator, features_key = value.rpartition("#")
        if not separator:
            raise ValueError(f"{where}: features_filepath: expected 'archive.npz#key', received {value!r}")
        features_path = folder / archive
    file = audio_path or features_path
    if not file.is_file():
        raise FileNotFoundError(f"{where}: expected a file, received {str(file)!r}, which does not exist")
    duration = _number(entry.pop("duration", None), "duration", where)
    if duration <= 0:
        raise ValueError(f"{where}: duration: expected seconds > 0, received {duration}")
    offset = _number(entry.pop("offset", 0.0), "offset", where)
    if offset < 0:
        raise ValueError(f"{where}: offset: expected seconds >= 0, received {offset}")
    text = _string(entry.pop("text", ""), "text", where)
    return Utterance(audio_path, duration, text, offset, features_path, features_key, entry)


def _string(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{where}: {name}: expected a string, received {value!r}")
    return value


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
        raise ValueError(f"{where}: {name}: expected a number of seconds, received {value!r}")
    return float(value)


def load_features(utterance: Utterance) -> Tensor:
    """The stored features of an utterance: ``[bins, frames]`` float32 (the archive holds ``[frames, bins]``).

    Raises:
        ValueError: the utterance has no stored features, or the archive does not hold a two-dimensional
            array of that name.
    """
    path, key = utterance.features_path, utterance.features_key
    if path is None:
        raise ValueError(f"utterance: expected one with features_path, received {utterance}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"features_path: expected an .npz archive, received {str(path)!r}")
    try:
        with numpy.load(path) as archive:
            if key not in archive:
                raise ValueError(f"features_key: expected a name in {str(path)!r}, received {key!r}")
            array = archive[key]
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"features_path: expected an intact archive, received {str(path)!r}: {error}"
        ) from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(
            "utterance: expected floating-point features [frames, bins], "
            f"received {array.dtype} {array.shape}"
        )
    return torch.from_numpy(array).float().t().contiguous()
