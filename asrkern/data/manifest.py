"""Manifests in NeMo's form, one JSON object a line, and in the forms of :mod:`asrkern.data.tables`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from asrkern.data._files import check_text, find_file, json_object, read_lines, recording_seconds, shown
from asrkern.data.tables import Entry, read_samples, read_table, read_transcript
from asrkern.data.utterance import Utterance

# NeMo accepts each of these names.
_AUDIO_KEYS = ("audio_filepath", "audio_filename", "audio_file")


def read_manifest(path: str | os.PathLike[str], left_out: list[Exception] | None = None) -> list[Utterance]:
    """Read a manifest: JSON lines as NeMo writes them, or one of the tables that
    docs/corpora.md names.

    A JSON line has ``audio_filepath`` (or ``audio_filename``, ``audio_file``) or ``features_filepath``
    (``"archive.npz#key"``), relative to the manifest or to the working directory, or absolute; it may have ``duration``
    in seconds (without it, or null, to the end of the recording), ``offset`` in seconds, ``text`` or a file of it,
    ``text_filepath``, and anything else. Blank lines are skipped.

    Args:
        path: the manifest; it may be compressed by gzip.
        left_out: a list that gets the error of each line that is wrong, which is then left out; None to raise it.

    Raises:
        FileNotFoundError: no such manifest, or a line names a file that does not exist.
        ValueError: a line that is not a JSON object, or a field that is missing or has a wrong value; also
            a manifest without any utterance. The message has the line number.
    """
    utterances = [utterance for _, utterance in iterate_manifest(path, left_out)]
    if not utterances:
        raise ValueError(f"path: expected at least one utterance, received none in {str(path)!r}")
    return utterances


def iterate_manifest(
    path: str | os.PathLike[str], left_out: list[Exception] | None = None
) -> Iterator[tuple[str, Utterance]]:
    """Utterances one by one, each after its place (file and line). There may be none."""
    for where, entry in manifest_entries(path):
        if isinstance(entry, Utterance):
            yield where, entry
        elif left_out is None:
            raise entry
        else:
            left_out.append(entry)


def manifest_entries(path: str | os.PathLike[str]) -> Iterator[tuple[str, Utterance | OSError | ValueError]]:
    """All entries one by one, each after its place: an utterance, or what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a manifest, received {str(path)!r}, which is not a file")
    for where, entry in _entries(path):
        try:
            found = entry()
        except (OSError, ValueError) as error:
            found = error
        yield where, found


def _entries(path: Path) -> Iterator[Entry]:
    """Entries of a manifest, whose form the first line shows."""
    where, first = next(read_lines(path), ("", b""))
    json_lines = not {".json", ".jsonl"}.isdisjoint(path.suffixes[-2:])
    if first.strip() == b"{" or (b'"samples"' in first and "samples" in json_object(first, where)):
        yield from read_samples(path)
    elif not json_lines and first.lstrip()[:1] not in (b"{", b"[") and (b"," in first or b"\t" in first):
        yield from read_table(path)
    else:
        for where, line in read_lines(path):
            yield where, partial(_nemo, line, path.parent, where)


def _nemo(line: bytes, folder: Path, where: str) -> Utterance:
    # NeMo's own tools write null for unknown values, so null counts as missing.
    entry = json_object(line, where)
    audio_key = next((key for key in _AUDIO_KEYS if entry.get(key) is not None), None)
    if (audio_key is None) == (entry.get("features_filepath") is None):
        raise ValueError(
            f"{where}: expected a JSON object with either audio_filepath or features_filepath, "
            f"received {shown(line)}"
        )
    offset = entry.pop("offset", None)
    offset = 0.0 if offset is None else _number(offset, "offset", where)
    if offset < 0:
        raise ValueError(f"{where}: offset: expected seconds >= 0, received {offset}")
    audio_path = features_path = features_key = None
    if audio_key is not None:
        name = check_text(entry.pop(audio_key), audio_key, where)
        try:
            audio_path = find_file(name, where, folder, "")
        except FileNotFoundError as error:
            if "shard_id" not in entry:
                raise
            raise FileNotFoundError(f"{error}: unpack the tar files of sharded manifests first") from None
    else:
        value = check_text(entry.pop("features_filepath"), "features_filepath", where)
        archive, separator, features_key = value.rpartition("#")
        if not separator:
            raise ValueError(f"{where}: features_filepath: expected 'archive.npz#key', received {value!r}")
        features_path = find_file(archive, where, folder, "")
    duration = _duration(entry.pop("duration", None), offset, audio_path, where)
    said = _transcript(entry, folder, where)
    return Utterance(audio_path, duration, said, offset, features_path, features_key, entry)


def _duration(value: Any, offset: float, audio_path: Path | None, where: str) -> float:
    if value is None and audio_path is not None:
        seconds = recording_seconds(audio_path, where)
        if offset >= seconds:
            raise ValueError(
                f"{where}: offset: expected less than the recording's {seconds:.3f} s, received {offset}"
            )
        return seconds - offset
    duration = _number(value, "duration", where)
    if duration <= 0:
        raise ValueError(f"{where}: duration: expected seconds > 0, received {duration}")
    return duration


def _transcript(entry: dict[str, Any], folder: Path, where: str) -> str:
    """The transcript, from the first of the possible fields, as in NeMo."""
    said, file = entry.pop("text", None), entry.pop("text_filepath", None)
    if said is None and file is not None:
        return read_transcript(find_file(check_text(file, "text_filepath", where), where, folder, ""), where)
    if said is None:
        said = entry.get("normalized_text")
    return "" if said is None else check_text(said, "text", where)


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
        raise ValueError(f"{where}: {name}: expected a number of seconds, received {shown(value)}")
    return float(value)
