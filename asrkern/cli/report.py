"""``asrkern report``: what decides what runs here, to paste into an issue."""

from __future__ import annotations

import typer

from asrkern.cli.console import errors


def report() -> None:
    """A block to paste into an issue: versions, CPU, instruction sets, kernels, threads, packages, settings.

    No path of yours is in it.

    Example: asrkern report
    """
    with errors(RuntimeError):
        from asrkern._report import block

        typer.echo(block())
