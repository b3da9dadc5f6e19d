"""Errors that name the arguments which the caller knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def renamed(**names: str) -> Iterator[None]:
    """Errors of CTCBeamDecoder that begin with one of these arguments begin with its name here."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name, colon, rest = str(error).partition(": ")
        if name not in names:
            raise
        raise type(error)(names[name] + colon + rest) from None
