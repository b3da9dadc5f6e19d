"""Errors with the names of arguments that the caller knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def renamed(**names: str) -> Iterator[None]:
    """A context in which errors of CTCBeamDecoder about one of these arguments name the given one instead."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name, colon, rest = str(error).partition(": ")
        if name not in names:
            raise
        raise type(error)(names[name] + colon + rest) from None
