"""What commands show on stderr: errors and progress."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn

from asrkern._memory import out_of_memory
from asrkern.cli.command import as_typed, closed_outputs

# Whether the running command was typed with --debug.
debugging: ContextVar[bool] = ContextVar("debugging", default=False)


class Screen(Console):
    """rich's console, without its own answer to a closed pipe (SystemExit with status 1)."""

    def on_broken_pipe(self) -> None:
        """Command ends it."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@contextmanager
def errors(*more: type[Exception]) -> Iterator[None]:
    """Errors about files, values and memory, and of these classes, in one line and as exit status 1; warnings
    in one line.

    Others are faults of the program, which :class:`asrkern.cli.app.Commands` says.
    """
    try:
        with warnings_in_lines():
            yield
    except Exception as error:
        found = said(error, *more)
        # A reader that is gone is told nothing: Command ends it.
        if found is None or (isinstance(error, BrokenPipeError) and closed_outputs()):
            raise
        show_traceback(error)
        typer.echo(f"error: {found}", err=True)
        raise typer.Exit(1) from None


def show_traceback(error: Exception) -> None:
    """Where an error comes from, with ``--debug``."""
    if debugging.get():
        traceback.print_exception(error)


def said(error: Exception, *more: type[Exception]) -> str | None:
    """What to say, in one line, of an error about files, values and memory, or of these classes; None of others."""
    found = out_of_memory(error)
    if found is None and isinstance(error, (ImportError, OSError, ValueError, *more)):
        found = str(error)
    return None if found is None else one_line(as_typed(found))


def one_line(text: str) -> str:
    """A message without line feeds and what else could move a terminal's cursor: files' own words may be in it."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """UserWarnings without the line of code that they come from."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if category is UserWarning:
                typer.echo(f"warning: {one_line(as_typed(str(message)))}", err=True)
            else:
                others(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]  # the rest is handed on as it comes
        yield


@contextmanager
def bars() -> Iterator[Callable[..., None]]:
    """Progress bars, one a stage: a function of stage, done and total, and what more there is to say."""
    tasks: dict[str, TaskID] = {}
    with Progress(
        *Progress.get_default_columns(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[more]}"),
        console=Screen(stderr=True),
        # Else what is written to a file or pipe would end up in the terminal.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:

        def report(stage: str, done: int, total: int | None, more: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, more=more)
            progress.update(tasks[stage], completed=done, total=total, more=more)

        yield report
