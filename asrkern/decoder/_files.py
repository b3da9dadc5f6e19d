"""Files that are read piece by piece, and errors about them."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
# How compressed files begin → their usual suffix, and Python's module that reads them.
_COMPRESSED = {b"\x1f\x8b": (".gz", "gzip"), b"BZh": (".bz2", "bz2"), b"\xfd7zXZ\0": (".xz", "lzma")}


@contextmanager
def about(path: str | os.PathLike[str]) -> Iterator[None]:
    """A context in which ValueErrors begin with the name of this file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def _decompressed(raw: io.BufferedReader) -> tuple[str, BinaryIO]:
    """(suffix of its kind, content). The kind is told by the file's first bytes, whatever its name."""
    beginning = raw.peek(8)
    for magic, (suffix, module) in _COMPRESSED.items():
        if beginning.startswith(magic):
            # Not every Python has all of these modules.
            return suffix, importlib.import_module(module).open(raw)
    return "", raw


def _is_damage(error: Exception) -> bool:
    """Whether an exception is about the content of a compressed file. Errors of the system have a number."""
    return not isinstance(error, OSError) or error.errno is None


def read_chunks(
    path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
) -> Iterator[bytes]:
    """A file's bytes, piece by piece. Files compressed by gzip, bzip2 or xz are decompressed.

    Args:
        progress: called with (bytes of the file read, bytes of the file) after each piece.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a compressed file is damaged or cut short.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as raw:
        suffix, file = _decompressed(raw)
        while True:
            try:
                chunk = file.read(_CHUNK_BYTES)
            except Exception as error:
                # Each module has exceptions of its own: EOFError, zlib.error, lzma.LZMAError, OSError.
                if not suffix or not _is_damage(error):
                    raise
                raise ValueError(f"expected an intact {suffix} file: {error}") from None
            if not chunk:
                return
            yield chunk
            if progress:
                progress(raw.tell(), size)
