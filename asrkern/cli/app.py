"""All commands."""

from __future__ import annotations

import typer

from asrkern.cli import lm

app = typer.Typer(
    help="Speech recognition: language models. Without a command: what is active on this machine.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(lm.app, name="lm")


@app.callback()
def _root() -> None:
    """Without it typer takes a single group for the whole program."""
