"""Manifests that only name recordings and transcripts. Utterances are whole recordings.

Comma- or tab-separated, with a header: Mozilla DeepSpeech's (``wav_filename``, ``transcript``), Common Voice's
(``path`` in the folder ``clips``, ``sentence``) and Hugging Face's audio folders' (``file_name``, ``transcription`` or
``text``). Without one: deepspeech.pytorch's lines ``recording,transcript``, both files; of its version 3 on, JSON with
``root_path`` and ``samples``.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from asrkern.data._files import check_text, decode, find_file, read_lines, recording_seconds, shown
from asrkern.data.utterance import Utterance

# The place of an entry, and what makes its utterance or raises OSError or ValueError.
Entry = tuple[str, Callable[[], Utterance]]

_RECORDING_COLUMNS = ("wav_filename", "path", "file_name")
_TEXT_COLUMNS = ("transcript", "sentence", "transcription", "text")
_FORMS = (
    "expected a JSON object, 'recording,transcript' (two files), or a header with "
    f"{', '.join(_RECORDING_COLUMNS)} and {', '.join(_TEXT_COLUMNS)}"
)


def read_table(path: Path) -> Iterator[Entry]:
    """Entries of lines of fields between commas or tabs.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has neither a known header nor two fields a line.
    """
    header: list[str] | None = None
    for index, (where, line) in enumerate(read_lines(path)):
        if index == 0:
            first = decode(line, where)
            separator = "\t" if "\t" in first else ","
            fields = _fields(first, separator, where)
            if _column(fields, _RECORDING_COLUMNS) and _column(fields, _TEXT_COLUMNS):
                header = fields
                continue
            if separator == "\t" or len(fields) != 2:
                raise ValueError(f"{where}: {_FORMS}; received {shown(line)}")
        form: Callable[..., Utterance] = _row if header else _pair
        yield where, partial(form, line, header, separator, path.parent, where)


def _fields(line: str, separator: str, where: str) -> list[str]:
    # Common Voice's sentences hold single quotation marks.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    try:
        return [
            field.strip()
            for field in next(csv.reader([line], delimiter=separator, quoting=quoting, strict=True))
        ]
    except csv.Error as error:
        raise ValueError(f"{where}: expected fields, received {shown(line)} ({error})") from None


def _column(fields: list[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in fields), None)


def _row(line: bytes, header: list[str], separator: str, folder: Path, where: str) -> Utterance:
    fields = _fields(decode(line, where), separator, where)
    if len(fields) != len(header):
        raise ValueError(f"{where}: expected {len(header)} fields, received {len(fields)}: {shown(line)}")
    row: dict[str, Any] = dict(zip(header, fields, strict=True))
    name = check_text(row.pop(str(_column(header, _RECORDING_COLUMNS))), "recording", where)
    recording = find_file(name, where, folder, folder / "clips", "")
    said = check_text(row.pop(str(_column(header, _TEXT_COLUMNS))), "transcript", where)
    return Utterance(recording, recording_seconds(recording, where), said, extra=row)


def _pair(line: bytes, header: None, separator: str, folder: Path, where: str) -> Utterance:
    fields = _fields(decode(line, where), separator, where)
    if len(fields) != 2:
        raise ValueError(f"{where}: expected 'recording,transcript', received {shown(line)}")
    return _spoken(*fields, where, folder, "")


def _spoken(recording: str, transcript: str, where: str, *folders: str | os.PathLike[str]) -> Utterance:
    path = find_file(recording, where, *folders)
    said = read_transcript(find_file(transcript, where, *folders), where)
    return Utterance(path, recording_seconds(path, where), said)


def read_transcript(path: Path, where: str) -> str:
    """The text of a file, its lines joined by spaces.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8.
    """
    try:
        return check_text(" ".join(path.read_text("utf-8-sig").split("\n")).strip(), str(path), where)
    except UnicodeDecodeError:
        raise ValueError(f"{where}: expected UTF-8 in {str(path)!r}") from None


def read_samples(path: Path) -> Iterator[Entry]:
    """Entries of deepspeech.pytorch's JSON.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, or lacks something.
    """
    try:
        manifest = json.loads(b"\n".join(line for _, line in read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON ({error})") from None
    samples = manifest.get("samples") if isinstance(manifest, dict) else None
    if not isinstance(samples, list):
        raise ValueError(f"{path}: expected a JSON object a line, or one with root_path and samples")
    root = os.path.expanduser(check_text(manifest.get("root_path", ""), "root_path", str(path)))
    for index, sample in enumerate(samples):
        where = f"{path}, samples[{index}]"
        yield where, partial(_sample, sample, root, path.parent, where)


def _sample(sample: Any, root: str, folder: Path, where: str) -> Utterance:
    if not isinstance(sample, dict):
        raise ValueError(f"{where}: expected an object, received {shown(sample)}")
    names = (check_text(sample.get(key), key, where) for key in ("wav_path", "transcript_path"))
    return _spoken(*names, where, folder / root, root)
