"""All commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import asrkern
from asrkern.cli import lm
from asrkern.cli.align import align
from asrkern.cli.command import Command
from asrkern.cli.console import debugging, one_line, said, show_traceback
from asrkern.cli.convert import convert
from asrkern.cli.decode import decode
from asrkern.cli.evaluate import evaluate
from asrkern.cli.models import models
from asrkern.cli.prepare import prepare
from asrkern.cli.report import report
from asrkern.cli.serve import serve
from asrkern.cli.train import INTERRUPTED, sweep, train
from asrkern.cli.transcribe import transcribe

# Of click, which some versions of Typer have inside themselves.
UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]
DEBUG = "--debug"


class Commands(TyperGroup):
    """What goes wrong is said in one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that the arguments name, and end with its status; if not ``standalone_mode``, as click does."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        arguments = [*(sys.argv[1:] if args is None else args)]
        if DEBUG in arguments:
            # Typed anywhere, as behind a command that has just failed.
            arguments.remove(DEBUG)
            arguments.insert(0, DEBUG)
        try:
            status = super().main(arguments, prog_name, complete_var, standalone_mode=False, **extra)
        except UsageError as error:
            status = error.exit_code
            # Empty where help was shown.
            if message := one_line(error.format_message()).rstrip("."):
                path = error.ctx.command_path if error.ctx else prog_name
                typer.echo(f"error: {message} (see {path} --help)", err=True)
        except typer.Abort:
            status = INTERRUPTED
        except Exception as error:
            status = 1
            show_traceback(error)
            fault = f"{type(error).__name__}: {one_line(str(error))} ({DEBUG} shows where)"
            typer.echo(f"error: {said(error) or fault}", err=True)
        sys.exit(status)


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False)
for command in (models, decode, prepare, train, sweep, evaluate, transcribe, align, serve, convert, report):
    app.command(cls=Command)(command)
app.add_typer(lm.app, name="lm")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"asrkern {asrkern.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show where errors come from; may stand anywhere.")
    ] = False,
) -> None:
    """Speech recognition: models, training, language models, decoding. Without a command: what is active on this machine.

    Example: asrkern transcribe best.safetensors talk.flac
    """
    debugging.set(debug)
