"""Files that are read piece by piece, and errors about them."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CHUNK_BYTES = 1 << 20


@contextmanager
def about(path: str | os.PathLike[str]) -> Iterator[None]:
    """ValueErrors inside begin with the name of this file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def read_chunks(
    path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
) -> Iterator[bytes]:
    """A file's bytes piece by piece, decompressed if its name ends in ``.gz``.

    Args:
        progress: called with (bytes of the file read, bytes of the file) after each piece.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a ``.gz`` file is damaged or cut short.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if os.fspath(path).endswith(".gz") else raw
        try:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
                if progress:
                    progress(raw.tell(), size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"expected an intact .gz file: {error}") from None
