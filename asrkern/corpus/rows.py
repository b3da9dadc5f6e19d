"""The rows of a job, one JSON object a line, in a folder that the job can go on with after whatever has ended it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from asrkern._atomic_write import write_text
from asrkern.corpus.plan import Row

ROWS, JOB = "transcripts.jsonl", "job.json"
# What a machine that loses its power may lose; what a process writes outlives it.
_SYNC_SECONDS = 1.0


class RowFile:
    """``transcripts.jsonl`` of a folder, for one process at a time.

    Args:
        folder: it is made where it is not there.
        identity: of the job, as JSON. It is kept in ``job.json``.

    Attributes:
        done: the entries that have a row.
        errors: how many of them have an error.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the folder has rows of another job, damaged ones, or is being written by another process.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / ROWS
        self._file = self._path.open("ab+")
        self._synced = 0.0
        try:
            self._lock()
            _check_identity(folder / JOB, identity, started=self._path.stat().st_size > 0)
            self.done: set[int] = set()
            self.errors = 0
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._sync()
        self._file.close()

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows of entries that have none yet."""
        new = [row for row in {row["entry"]: row for row in rows}.values() if row["entry"] not in self.done]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in new)
        # Names of files may be no Unicode.
        self._file.write(text.encode("utf-8", "backslashreplace"))
        self._file.flush()
        if time.monotonic() > self._synced + _SYNC_SECONDS:
            self._sync()
        for row in new:
            self._count(row)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _count(self, row: Row) -> None:
        self.done.add(row["entry"])
        self.errors += "error" in row

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"out: expected a folder that nobody writes, received {str(self._path.parent)!r}, where another process "
                "is at work"
            ) from None

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            # The last one may have been cut off.
            if not line.endswith(b"\n"):
                self._file.truncate(whole)
                break
            whole += len(line)
            try:
                row = json.loads(line)
                self._count({**row, "entry": int(row["entry"])})
            except (ValueError, TypeError, KeyError):
                raise ValueError(
                    f"{self._path}, line {number}: expected a row of a job, received {line[:80]!r}"
                ) from None


def _check_identity(path: Path, identity: Mapping[str, object], started: bool) -> None:
    wanted = json.loads(json.dumps(identity))
    if path.exists() or started:
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected the job that the rows beside it are of: {error}") from None
        for name in wanted.keys() | found.keys() if isinstance(found, dict) else ["job"]:
            before, now = (value.get(name) if isinstance(value, dict) else value for value in (found, wanted))
            if before != now:
                raise ValueError(
                    f"{path.parent}: expected the job that was begun there, with {name} {before!r}, received {now!r}; "
                    "take another folder"
                )
    else:
        write_text(path, json.dumps(wanted, indent=1) + "\n")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()
