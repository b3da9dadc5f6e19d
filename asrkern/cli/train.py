"""``asrkern train`` and ``asrkern sweep``: from a recipe to a trained model."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from asrkern._optional import needs
from asrkern.cli.console import bars, errors
from asrkern.cli.device import Device

RecipePath = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A TOML file, as in recipes/.")]
Folder = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of the run; runs/NAME if not given.", show_default=False),
]
# 128 + SIGINT.
INTERRUPTED = 130

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
    device: Device = None,
) -> None:
    """Train by a recipe.

    Example: asrkern train recipes/s1_grid.toml trainer.epochs=5 --out runs/short

    With several processes: torchrun --nproc-per-node 2 -m asrkern train RECIPE.

    After Ctrl-C, --resume goes on from the last state that was saved: after each epoch, and every
    trainer.checkpoint_steps steps.
    """
    with _interruptible("train", recipe, overrides, out, device), errors():
        needs("train")
        from asrkern.training import trainer
        from asrkern.training.metrics import in_words
        from asrkern.training.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or ())
        folder = out or Path("runs") / loaded.name
        with _bar() as progress, _log():
            results = trainer.train(loaded, folder, resume=resume, device=device, progress=progress)
        best = results.best()
    if best and _is_first():
        reached, constant = (in_words(results.metric, x) for x in (best["valid_metric"], results.constant))
        typer.echo(
            f"{folder}: epoch {best['epoch']} is the best, {results.metric} {reached} (constant answer {constant})"
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
    device: Device = None,
) -> None:
    """Train variants of a recipe, those that it names or those given here; one table.

    Example: asrkern sweep recipes/s1_grid.toml optimizer.lr=1e-3,1e-4
    """
    with _interruptible("sweep", recipe, values, out, device), errors():
        needs("train")
        from asrkern._toml import parse_value
        from asrkern.training import sweep as runs
        from asrkern.training.recipe import load_recipe
        from asrkern.training.results import as_markdown

        lists = [value for value in values or () if "," in value.partition("=")[2] and "[" not in value]
        loaded = load_recipe(recipe, [value for value in values or () if value not in lists])
        pairs = (value.partition("=") for value in lists)
        given = {key: [parse_value(part) for part in text.split(",")] for key, _, text in pairs}
        variants = runs.grid(given) if given else loaded.sweep
        folder = out or Path("runs") / f"{loaded.name}-sweep"
        with _log():
            rows = runs.sweep(loaded, variants, folder, resume=resume, device=device)
        typer.echo(as_markdown(rows, loaded.metric))
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


@contextmanager
def _interruptible(
    name: str, recipe: Path, values: list[str] | None, out: Path | None, device: str | None
) -> Iterator[None]:
    """Ctrl-C says what is saved and the command that goes on, and ends with the status that shells expect."""
    try:
        yield
    except KeyboardInterrupt as error:
        options = [
            *(["--out", str(out)] if out else []),
            *(["--device", device] if device else []),
            "--resume",
        ]
        command = shlex.join(["asrkern", name, str(recipe), *(values or ()), *options])
        if _is_first():
            typer.echo(f"{error or 'interrupted'}\nto go on: {command}", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int | None], None] | None]:
    """A bar on a terminal, else nothing."""
    with bars() if sys.stderr.isatty() and _is_first() else nullcontext() as progress:
        yield progress


def _is_first() -> bool:
    """Of the processes that torchrun started."""
    return not int(os.environ.get("RANK", 0))


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
