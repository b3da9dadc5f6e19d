"""Files of manifests, and files that manifests name. Messages begin with the place that names the file."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import soundfile

from asrkern.data.container import open_recording

_BOM = b"\xef\xbb\xbf"
# The longest line in a gzip file: two megabytes of gzip can hold a line of two gigabytes.
_PACKED_LINE_BYTES = 1 << 26


def read_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each line after its place (file and number). Blank lines are skipped; gzip files are decompressed.

    Raises:
        OSError: the file cannot be read.
        ValueError: a gzip file is damaged, or a line of it is endless.
    """
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        number = 0
        try:
            for number, line in enumerate(_unpacked(raw) if packed else raw, 1):
                if packed and len(line) > _PACKED_LINE_BYTES:
                    raise ValueError(
                        f"{path}, line {number}: expected at most {_PACKED_LINE_BYTES} bytes a line"
                    )
                line = line.removeprefix(_BOM).rstrip(b"\r\n")
                if line.strip():
                    yield f"{path}, line {number}", line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}, line {number + 1}: expected intact gzip: {error}") from None


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    unpacked = gzip.GzipFile(fileobj=file)
    return iter(lambda: unpacked.readline(_PACKED_LINE_BYTES + 1), b"")


def decode(line: bytes, where: str) -> str:
    """A line as text. Raises ValueError if it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{where}: expected UTF-8, received {line[:60]!r}") from None


def json_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object in a line. Raises ValueError if it is none."""
    if line.lstrip().startswith(b"["):
        raise ValueError(
            f"{where}: expected a JSON object a line, received a list, {shown(line)}; of a .json of lhotse's "
            "`lhotse copy NAME.json NAME.jsonl` makes lines"
        )
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected a JSON object, received {shown(line)} ({error})") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a JSON object, received {shown(line)}")
    return entry


def check_text(value: Any, name: str, where: str) -> str:
    """``value`` if it is a string that files and terminals take; else raises ValueError."""
    # Half of a surrogate pair is valid JSON, but no text.
    if not isinstance(value, str) or "\0" in value or (not value.isascii() and not _encodes(value)):
        raise ValueError(f"{where}: {name}: expected a string, received {shown(value)}")
    return value


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    """A value of a manifest for messages, shortened if it is long."""
    try:
        written = repr(value)
    except RecursionError:
        return "something nested too deeply"
    return written if len(written) <= 200 else written[:197] + "..."


def url_in(name: str) -> bool:
    """Whether a name that is no file's is a URL, perhaps one that a path library has taken a slash from."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", name) is not None


def find_file(name: str, where: str, *folders: str | os.PathLike[str]) -> Path:
    """The file of this name in the first folder that has it. The name may be absolute or begin with ~.

    Raises:
        FileNotFoundError: none has.
    """
    name = os.path.expanduser(name)
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return Path(path)
    if url_in(name):
        raise FileNotFoundError(f"{where}: expected a file, received the URL {name!r}: download it first")
    raise FileNotFoundError(
        f"{where}: expected a file, received {os.path.join(folders[0], name)!r}, which does not exist"
    )


def recording_seconds(path: Path, where: str) -> float:
    """Length of a recording: by its header, or by all of its samples where that does not tell.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none, is truncated, or has no samples.
    """
    try:
        with open(path, "rb", buffering=0) as file, open_recording(file) as recording:
            frames, rate = recording.length, recording.samplerate
            if frames is None:
                frames = sum(map(len, recording.mono()))
    except (soundfile.LibsndfileError, ValueError) as error:
        reason = getattr(error, "error_string", error)
        raise ValueError(f"{where}: expected a recording, received {str(path)!r}: {reason}") from None
    if frames < 1:
        raise ValueError(f"{where}: expected a recording, received {str(path)!r}, which has no samples")
    return frames / rate
