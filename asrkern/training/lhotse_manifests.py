"""lhotse's own manifests: cuts, or a folder with recordings and supervisions, as JSON lines, perhaps compressed.

Nothing in a manifest is executed: recordings are files, or addresses that lhotse fetches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import soundfile
from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.cut.data import DataCut
from lhotse.serialization import deserialize_item

from asrkern.data._files import find_file, json_object, read_lines, shown
from asrkern.training.cuts import brief, check_name, check_rate, make_cut

# Supervisions are rounded. One that reaches further beyond the end of a recording is a mistake.
_TOLERANCE_SECONDS = 0.05

# File → what its header says, for files that have been looked at.
_Headers = dict[str, tuple[int, float] | None]


def is_lhotse(path: Path) -> bool:
    """Whether the first line is one of a lhotse manifest.

    Raises:
        OSError, ValueError: the file cannot be read, or is a manifest of lhotse's without utterances of its own.
    """
    where, line = next(read_lines(path), ("", b""))
    try:
        first = json_object(line, where)
    except ValueError:
        return False
    if "audio_filepath" in first:
        return False  # a line of NeMo's may have any other field
    if "sources" in first or {"recording_id", "start"} <= first.keys():
        kind = "recordings" if "sources" in first else "supervisions"
        raise ValueError(
            f"{path}: expected cuts, received lhotse's {kind}; name the folder with recordings and supervisions, "
            "or make cuts of them (lhotse cut simple)"
        )
    return str(first.get("type", "")).endswith("Cut")


def lhotse_cuts(path: Path) -> Iterator[Callable[[], Cut]]:
    """For each cut what makes it, or raises OSError or ValueError."""
    headers: _Headers = {}
    for where, line in read_lines(path):
        yield partial(_cut, line, path.parent, where, headers)


def is_lhotse_folder(folder: Path) -> bool:
    """Whether a folder has manifests with the names that lhotse gives them."""
    return any(folder.glob("*cuts*.jsonl*")) or any(folder.glob("*supervisions*.jsonl*"))


def lhotse_folder_cuts(folder: Path) -> Iterator[Callable[[], Cut]]:
    """For each supervision, or each cut, what makes its cut, or raises OSError or ValueError.

    Raises:
        OSError: a manifest cannot be read.
        ValueError: there are several manifests of a kind, or recordings are wrong.
    """
    cuts, recordings, supervisions = (
        sorted(folder.glob(f"*{kind}*.jsonl*")) for kind in ("cuts", "recordings", "supervisions")
    )
    if len(cuts) == 1:
        yield from lhotse_cuts(cuts[0])
        return
    if cuts or len(recordings) != 1 or len(supervisions) != 1:
        raise ValueError(
            f"path: expected one manifest of cuts, or one of recordings and one of supervisions, in {str(folder)!r}, "
            f"received {len(cuts)}, {len(recordings)} and {len(supervisions)}; name a manifest of cuts"
        )
    known: dict[str, Recording] = {}
    headers: _Headers = {}
    for where, line in read_lines(recordings[0]):
        recording = _item(line, folder, where, Recording)
        _check_recording(recording, where, headers)
        known[recording.id] = recording
    for where, line in read_lines(supervisions[0]):
        yield partial(_supervised, line, folder, where, known)


def _cut(line: bytes, folder: Path, where: str, headers: _Headers) -> Cut:
    cut = _item(line, folder, where, Cut)
    where = f"{where}, {cut.id}"
    if not isinstance(cut, DataCut):
        raise ValueError(
            f"{where}: expected MonoCut or MultiCut, received {type(cut).__name__} "
            "(lhotse's save_audios makes it so)"
        )
    if len(cut.supervisions) != 1:
        raise ValueError(
            f"{where}: expected one supervision a cut, received {len(cut.supervisions)} "
            "(lhotse's trim_to_supervisions makes it so)"
        )
    _check_fields(cut, where)
    _check_fields(cut.supervisions[0], where)
    if cut.has_recording:
        _check_recording(cut.recording, where, headers)
        if cut.start < 0 or cut.end > cut.recording.duration + _TOLERANCE_SECONDS:
            raise ValueError(
                f"{where}: expected a part of a recording of {cut.recording.duration} s, received "
                f"{cut.duration} s from {cut.start} s on"
            )
    elif not {"features_path", "features_key"} <= (cut.custom or {}).keys():
        raise ValueError(
            f"{where}: expected a recording, or custom features_path and features_key, received neither"
        )
    return cut


def _supervised(line: bytes, folder: Path, where: str, recordings: dict[str, Recording]) -> Cut:
    supervision = _item(line, folder, where, SupervisionSegment)
    where = f"{where}, {supervision.id}"
    _check_fields(supervision, where)
    name = supervision.recording_id
    if not isinstance(name, str) or name not in recordings:
        raise ValueError(f"{where}: expected a known recording, received {shown(name)}")
    return make_cut(
        recordings[name],
        supervision,
        where,
        start=supervision.start,
        duration=supervision.duration,
        excess_seconds=_TOLERANCE_SECONDS,
        channel=supervision.channel,
    )


def _item(line: bytes, folder: Path, where: str, kind: Any) -> Any:
    """The item of a line; the files of its recordings are found."""
    data = json_object(line, where)
    for source in _sources(data):
        _find(source, folder, f"{where}, {shown(data.get('id'))}")
    try:
        item = deserialize_item(data)
    except Exception as error:  # lhotse's constructors raise anything
        raise ValueError(
            f"{where}: expected a {kind.__name__} of lhotse, received {shown(line)} "
            f"({type(error).__name__}: {brief(error)})"
        ) from None
    if not isinstance(item, kind) or not isinstance(item.id, str):
        raise ValueError(
            f"{where}: expected a {kind.__name__} of lhotse with a string as id, received {shown(line)}"
        )
    return item


def _sources(data: Any) -> Iterator[Any]:
    """All sources of audio: of recordings, of impulse responses in their transforms, of mixed cuts."""
    if isinstance(data, dict):
        sources = data.get("sources")
        yield from sources if isinstance(sources, list) else ()
        data = list(data.values())
    for value in data if isinstance(data, list) else ():
        if isinstance(value, (dict, list)):
            yield from _sources(value)


def _find(source: Any, folder: Path, where: str) -> None:
    """Replace a source's name by the path of its file. lhotse would run commands, and addresses that begin with pipe:."""
    name = source.get("source") if isinstance(source, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"{where}: expected a file, received {shown(source)}")
    if source.get("type") == "url" and "://" in name and not name.startswith("pipe:"):
        return
    if source.get("type") != "file":
        raise ValueError(
            f"{where}: expected a file, received {shown(name)} of type {shown(source.get('type'))}; commands in data are "
            "not run: lhotse's save_audios writes recordings to files"
        )
    source["source"] = str(find_file(name, where, "", folder))
    check_name(source["source"], where)


def _check_recording(recording: Recording, where: str, headers: _Headers) -> None:
    """Raise ValueError unless a recording's values are possible, and those of its files.

    lhotse does not compare rates, and replaces up to half a second that is missing by an echo of the end.
    """
    rate = recording.sampling_rate
    check_rate(rate, where)
    if not _is_seconds(recording.duration) or recording.duration <= 0:
        raise ValueError(
            f"{where}: expected a recording's duration in seconds, received {shown(recording.duration)}"
        )
    if not _are_channels(recording.channel_ids) or not all(
        _are_channels(s.channels) for s in recording.sources
    ):
        raise ValueError(f"{where}: expected channels' indices, received {shown(recording.channel_ids)}")
    for source in () if recording.transforms else recording.sources:
        if source.type != "file":
            continue
        if source.source not in headers:
            headers[source.source] = _header(source.source)
        found, seconds = headers[source.source] or (rate, recording.duration)
        if found != rate or seconds < recording.duration - _TOLERANCE_SECONDS:
            raise ValueError(
                f"{where}: expected {recording.duration} s at {rate} Hz, as the manifest says, received {seconds} s at "
                f"{found} Hz in {source.source!r}"
            )


def _header(path: str) -> tuple[int, float] | None:
    """(rate in Hz, length in seconds); None if libsndfile does not know them exactly, since lhotse has other readers."""
    try:
        with open(path, "rb") as handle, soundfile.SoundFile(handle.fileno(), closefd=False) as file:
            exact = file.format != "MP3" and file.subtype != "OPUS"
            return (file.samplerate, file.frames / file.samplerate) if exact else None
    except (OSError, soundfile.LibsndfileError):
        return None


def _check_fields(item: DataCut | SupervisionSegment, where: str) -> None:
    text = item.text if isinstance(item, SupervisionSegment) else None
    if not _is_seconds(item.start) or not _is_seconds(item.duration) or item.duration <= 0:
        wrong = f"start and duration in seconds, received {shown(item.start)} and {shown(item.duration)}"
    elif not isinstance(item.channel, int) and not _are_channels(item.channel):
        wrong = f"a channel's index, received {shown(item.channel)}"
    elif not isinstance(text, str | None):
        wrong = f"text, received {shown(text)}"
    elif not isinstance(item.custom, dict | None):
        wrong = f"an object as custom, received {shown(item.custom)}"
    else:
        return
    raise ValueError(f"{where}: expected {wrong}")


def _are_channels(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(index, int) for index in value)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
