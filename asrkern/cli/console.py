"""What commands show on stderr: errors and progress."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import Progress, TaskID, TimeElapsedColumn


@contextmanager
def errors(*more: type[Exception]) -> Iterator[None]:
    """Errors about files and values, and of these classes, in one line and as exit status 1; warnings in one line."""
    try:
        with warnings_in_lines():
            yield
    except (ImportError, OSError, ValueError, *more) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """UserWarnings without the line of code that they come from."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning, category: type[Warning], *where: object) -> None:
            if category is UserWarning:
                typer.echo(f"warning: {message}", err=True)
            else:
                others(message, category, *where)

        warnings.showwarning = show
        yield


@contextmanager
def bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """Progress bars, one a stage: a function of stage, done and total."""
    tasks: dict[str, TaskID] = {}
    with Progress(
        *Progress.get_default_columns(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        # Else what is written to a file or pipe would end up in the terminal.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:

        def report(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            progress.update(tasks[stage], completed=done, total=total)

        yield report
