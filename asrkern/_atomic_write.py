"""Files that are there whole or not at all, whoever else writes or reads them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX, _SUFFIX = ".asrkern-", ".tmp"
_LOCK = "lock"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` once it is whole and on the disk.

    It lies beside ``path`` in a folder ``.asrkern-*.tmp`` of its own, so that any number of threads, processes and
    machines may write one path: readers find one of the files, whole. What killed writers left is removed by the next
    one. What a link points to is replaced, not the link. What is no ordinary file (``/dev/null``, a pipe) is written
    itself.

    Raises:
        OSError: it cannot be written, ``errno`` says why where that is known; what was there before is untouched, and
            the temporary file is gone.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        yield target
        return
    try:
        _remove_abandoned(target.parent)
        workspace, lock = _make_workspace(target.parent)
    except OSError as error:
        raise _failure(path, target, error) from error
    temporary = workspace / "file"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        # The mode of any new file; safetensors makes such that only their owner may read.
        temporary.chmod(os.fstat(lock).st_mode & 0o777)
        os.replace(temporary, target)
    except OSError as error:
        raise _failure(path, target, error) from error
    except Exception as error:
        # torch and safetensors report what the system refuses as errors of their own.
        if isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError":
            raise _failure(path, target, _refusal(error, temporary)) from error
        raise
    finally:
        # In this order, since NFS keeps files that are open, and with them their folder.
        os.close(lock)
        shutil.rmtree(workspace, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")


def is_full(error: OSError) -> bool:
    """Whether a file cannot be written for lack of space, or of what is left of a quota."""
    return error.errno in _NO_SPACE


def _make_workspace(folder: Path) -> tuple[Path, int]:
    """A new folder, and the file in it whose lock ends with this process, however that ends, for all machines."""
    while True:
        workspace = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder))
        # Another writer may take it for abandoned before it is locked.
        with suppress(FileNotFoundError):
            lock = os.open(workspace / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
            if _try_lock(lock) is not False and (workspace / _LOCK).exists():
                return workspace, lock
            os.close(lock)


def _try_lock(file: int) -> bool | None:
    """Whether it is locked now; None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


# When folders were looked through, and how many seconds that took.
_looked: dict[Path, tuple[float, float]] = {}


def _remove_abandoned(folder: Path) -> None:
    """Remove the workspaces whose writers are gone. Large folders are not looked through for every file."""
    began = time.monotonic()
    when, took = _looked.get(folder, (0.0, 0.0))
    if took and began < when + 100 * took:
        return
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for workspace in (path for path in found if path.endswith(_SUFFIX)):
        # Other users' are left alone; without a lock it is one that is being made, or was not before the end came.
        with suppress(OSError):
            try:
                lock = os.open(os.path.join(workspace, _LOCK), os.O_RDWR)
            except FileNotFoundError:
                os.rmdir(workspace)
                continue
            if _try_lock(lock):
                shutil.rmtree(workspace, ignore_errors=True)
            os.close(lock)
    _looked[folder] = began, time.monotonic() - began


def _refusal(error: Exception, temporary: Path) -> Exception:
    """The system's error behind a library's, if there is one."""
    if number := re.search(r"\(os error (\d+)\)", str(error)):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    try:
        # torch's writer says "unexpected pos" of whatever stopped it: the system is asked once more.
        with open(temporary, "ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as refusal:
        return refusal
    return error


def _failure(path: str | os.PathLike[str], target: Path, error: Exception) -> OSError:
    number, name = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    # Another file's name is kept; the temporary one's says nothing to anyone.
    is_ours = name is None or _PREFIX in str(name)
    reason: object = os.strerror(number) if number is not None and is_ours else error
    if number in _NO_SPACE:
        with suppress(OSError):
            reason = (
                f"{os.strerror(number)} ({shutil.disk_usage(target.parent).free / 2**20:.1f} MiB are free)"
            )
    kept = "the previous one is untouched" if target.exists() else "there is none before it"
    failure = OSError(f"{os.fspath(path)}: cannot be written: {reason}; {kept}")
    failure.errno = number
    return failure
