"""Kaldi's data folders.

``wav.scp`` names the recordings, relative to the working directory, as in Kaldi, or to the folder. With ``segments``
each line of that file is an utterance; without it each recording is one. ``text``, ``utt2spk``, ``spk2gender`` and
``utt2lang`` are optional, and may lack utterances. Rates and lengths are those of the recordings, whatever ``reco2dur``
and ``utt2dur`` say.

Commands in ``wav.scp`` are not run. If a command only prints or decodes a file of a known format (``cat FILE |``,
``flac -c -d -s FILE |``), the file is read.
"""

from __future__ import annotations

import logging
import math
import re
import shlex
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut

from asrkern.data._files import decode, find_file, read_lines
from asrkern.training.cuts import make_cut, read_recording

log = logging.getLogger("asrkern.training")

# Kaldi's extract-segments shortens segments that reach at most this far beyond the end.
_OVERSHOOT_SECONDS = 0.5

# Kaldi's white space is ASCII's.
_SPACE = re.compile(r"\s+", re.ASCII)
_ARCHIVE = re.compile(r".+\.ark:\d+")
_FLAC_OPTIONS = {"-c", "-d", "-s", "-cd", "-dc", "--stdout", "--decode", "--silent", "--totally-silent"}

# First field of a line → (place of the line, the rest of it).
_Table = dict[str, tuple[str, str]]


def kaldi_cuts(folder: Path) -> Iterator[Callable[[], Cut]]:
    """For each utterance what makes its cut, or raises OSError or ValueError.

    Raises:
        OSError: a file of the folder cannot be read.
        ValueError: a line is wrong, or has the name of another line.
    """
    return _Folder(folder).cuts()


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources = _table(folder / "wav.scp")
        self._segments = _table(folder / "segments") if (folder / "segments").exists() else None
        self._texts, self._speakers, self._genders, self._languages = (
            {name: value for name, (_, value) in _table(folder / file).items()}
            for file in ("text", "utt2spk", "spk2gender", "utt2lang")
        )
        self._recordings: dict[str, Recording] = {}

    def cuts(self) -> Iterator[Callable[[], Cut]]:
        utterances = self._sources if self._segments is None else self._segments
        self._warn(utterances)
        make = self._whole if self._segments is None else self._segment
        for name, (where, value) in utterances.items():
            yield partial(make, name, where, value)

    def _whole(self, name: str, where: str, value: str) -> Cut:
        return make_cut(self._read(name), self._supervision(name), where)

    def _segment(self, name: str, where: str, value: str) -> Cut:
        of, start, end, channel = _segment(value, where)
        if of not in self._sources:
            raise ValueError(f"{where}: expected a recording of {self._folder / 'wav.scp'}, received {of!r}")
        if of not in self._recordings:
            self._recordings[of] = self._read(of)
        return make_cut(
            self._recordings[of],
            self._supervision(name),
            where,
            start=start,
            duration=end - start,
            excess_seconds=_OVERSHOOT_SECONDS,
            channel=channel,
        )

    def _read(self, name: str) -> Recording:
        where, source = self._sources[name]
        return read_recording(_file(source, where, self._folder), where, name)

    def _supervision(self, name: str) -> SupervisionSegment:
        speaker = self._speakers.get(name)
        return SupervisionSegment(
            name,
            name,
            0.0,
            0.0,
            text=_SPACE.sub(" ", self._texts.get(name, "")),
            language=self._languages.get(name),
            speaker=speaker,
            gender=None if speaker is None else self._genders.get(speaker),
        )

    def _warn(self, utterances: Collection[str]) -> None:
        """Warn of utterances without a transcript, and of transcripts without an utterance."""
        path = self._folder / "text"
        bare = [name for name in utterances if name not in self._texts]
        if bare:
            log.warning(
                "%s: no line for %d of %d utterances (%s first), whose transcripts are taken as empty",
                path,
                len(bare),
                len(utterances),
                bare[0],
            )
        extra = [name for name in self._texts if name not in utterances]
        if extra:
            log.warning("%s: %d lines (%s first) are of no utterance", path, len(extra), extra[0])


def _table(path: Path) -> _Table:
    """One of the folder's files; empty if it is not there."""
    table: _Table = {}
    for where, line in read_lines(path) if path.exists() else ():
        key, *rest = (decode(part, where) for part in line.split(None, 1))
        if key in table:
            raise ValueError(f"{where}: expected each name once, received {key!r} again")
        table[key] = where, rest[0].rstrip(" \t") if rest else ""
    return table


def _segment(value: str, where: str) -> tuple[str, float, float, int | None]:
    """(recording, start, end, channel). Times in seconds, the end inf for the recording's; channel None if not given."""
    fields = value.split()
    try:
        name, start, end, *rest = fields
        times = float(start), float(end)
        (channel,) = map(int, rest) if rest else (None,)
    except ValueError:
        raise ValueError(
            f"{where}: expected utterance, recording, start and end in seconds, perhaps a channel, "
            f"received {value!r} after the utterance"
        ) from None
    begin, stop = times[0], math.inf if times[1] == -1 else times[1]
    if not 0 <= begin < stop:
        raise ValueError(f"{where}: expected 0 <= start < end, or an end of -1, received {start} and {end}")
    return name, begin, stop, channel


def _file(source: str, where: str, folder: Path) -> Path:
    if source.startswith("|") or source.endswith("|"):
        return find_file(_decoded(source, where), where, "", folder)
    try:
        return find_file(source, where, "", folder)
    except FileNotFoundError:
        if _ARCHIVE.fullmatch(source):
            raise ValueError(
                f"{where}: expected a file, received {source!r}: write recordings in archives to files "
                "(wav-copy) and name these"
            ) from None
        raise


def _decoded(command: str, where: str) -> str:
    """The file that a command only prints or decodes."""
    try:
        words = shlex.split(command.removesuffix("|"))
    except ValueError:
        words = []
    match words:
        case ["cat", file]:
            return file
        case ["flac", *options, file] if _FLAC_OPTIONS.issuperset(options):
            return file
    raise ValueError(
        f"{where}: expected a file, received the command {command!r}: commands in data are not run; "
        "run it, write to a file and name that"
    )
