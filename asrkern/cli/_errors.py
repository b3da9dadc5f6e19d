"""How commands report what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def one_line_errors(*more: type[Exception]) -> Iterator[None]:
    """Errors about files and values, and of these classes, in one line and as exit status 1."""
    try:
        yield
    except (ImportError, OSError, ValueError, *more) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
