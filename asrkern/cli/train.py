"""``asrkern train`` and ``asrkern sweep``: from a recipe to a trained model."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from asrkern.cli.console import errors

RecipePath = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A TOML file, as in recipes/.")]
Folder = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of the run; runs/NAME if not given.", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")]


def train(
    recipe: RecipePath,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="In place of the recipe's: optimizer.lr=1e-4 trainer.epochs=5"
        ),
    ] = None,
    out: Folder = None,
    resume: Resume = False,
) -> None:
    """Train by a recipe.

    With several processes: torchrun --nproc-per-node 2 -m asrkern train RECIPE.
    """
    with _log(), errors():
        from asrkern.training import trainer
        from asrkern.training.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or ())
        folder = out or Path("runs") / loaded.name
        results = trainer.train(loaded, folder, resume=resume, progress=sys.stderr.isatty())
        best = results.best()
    if best and not int(os.environ.get("RANK", 0)):
        metric = f"{results.metric} {best['valid_metric']:.4g}"
        typer.echo(
            f"{folder}: epoch {best['epoch']} is the best, {metric} (constant answer {results.constant:.4g})"
        )


def sweep(
    recipe: RecipePath,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE,VALUE...]...",
            help="All combinations of these, in place of the recipe's variants: optimizer.lr=1e-3,1e-4. One value "
            "alone is for all variants.",
        ),
    ] = None,
    out: Folder = None,
    resume: Resume = False,
) -> None:
    """Train variants of a recipe, those that it names or those given here; one table."""
    with _log(), errors():
        from asrkern.training import sweep as runs
        from asrkern.training.recipe import load_recipe, parse_value
        from asrkern.training.results import as_markdown

        lists = [value for value in values or () if "," in value.partition("=")[2] and "[" not in value]
        loaded = load_recipe(recipe, [value for value in values or () if value not in lists])
        pairs = (value.partition("=") for value in lists)
        given = {key: [parse_value(part) for part in text.split(",")] for key, _, text in pairs}
        variants = runs.grid(given) if given else loaded.sweep
        rows = runs.sweep(loaded, variants, out or Path("runs") / f"{loaded.name}-sweep", resume=resume)
        typer.echo(as_markdown(rows))
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


class _log:
    """The log of training on stderr while a command runs."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("asrkern.training")
        self._handler = logging.StreamHandler()
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self._logger.propagate = False
        self._logger.addHandler(self._handler)

    def __exit__(self, *error: object) -> None:
        self._logger.removeHandler(self._handler)
