"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside ``path``, which takes its place once it is whole and on the disk.

    What a link points to is replaced, not the link. What is no ordinary file (``/dev/null``, a pipe) is written itself.

    Raises:
        OSError: it cannot be written; what was there before is untouched, and the temporary file is gone.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        yield target
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        # safetensors makes files that only their owner may read.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # torch and safetensors report a full disk as errors of their own.
        if isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError":
            kept = "the previous one is untouched" if target.exists() else "there is none before it"
            raise OSError(f"{path}: cannot be written: {error}; {kept}") from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
