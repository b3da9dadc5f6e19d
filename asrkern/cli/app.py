"""All commands."""

from __future__ import annotations

import typer

from asrkern.cli import lm
from asrkern.cli.convert import convert
from asrkern.cli.decode import decode
from asrkern.cli.evaluate import evaluate
from asrkern.cli.models import models
from asrkern.cli.train import sweep, train
from asrkern.cli.transcribe import transcribe

app = typer.Typer(
    help="Speech recognition: models, training, language models, decoding. Without a command: what is active on "
    "this machine.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(models)
app.command()(decode)
app.command()(train)
app.command()(sweep)
app.command()(evaluate)
app.command()(transcribe)
app.command()(convert)
app.add_typer(lm.app, name="lm")
