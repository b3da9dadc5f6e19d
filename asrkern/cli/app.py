"""All commands."""

from __future__ import annotations

from typing import Annotated

import typer

import asrkern
from asrkern.cli import lm
from asrkern.cli.align import align
from asrkern.cli.command import Command
from asrkern.cli.convert import convert
from asrkern.cli.decode import decode
from asrkern.cli.evaluate import evaluate
from asrkern.cli.models import models
from asrkern.cli.prepare import prepare
from asrkern.cli.serve import serve
from asrkern.cli.train import sweep, train
from asrkern.cli.transcribe import transcribe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
)
for command in (models, decode, prepare, train, sweep, evaluate, transcribe, align, serve, convert):
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
) -> None:
    """Speech recognition: models, training, language models, decoding. Without a command: what is active on this machine."""
