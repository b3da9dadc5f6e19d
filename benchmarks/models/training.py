"""A recipe's training, by stock torch's layers and by asrkern's: seconds an epoch, memory, and both loss curves.

    python benchmarks/models/training.py recipes/s4_grid.toml                      three epochs of each
    python benchmarks/models/training.py recipes/s4_grid.toml trainer.epochs=5 --plot curves.png

Recipe, seed, data loading, features, loss, diagnosis and Lightning's loop are the same; only the model's layers
differ. Stock recurrent layers run on packed sequences, stock batch norms count padding, and so do asrkern's here
(stats = "padded"): then both compute the same, and the losses of the first epoch differ by rounding alone, which is
compared: where they differ by more than 2 %, there are no ratios, and the exit status is 1. Epochs are taken in
turns, a process each; the first one of each, which also computes the features that later ones keep, does not count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import torch
from torch import nn

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.models import teacher_forcing
from asrkern.training import trainer
from asrkern.training.module import RecognitionModule
from asrkern.training.recipe import Recipe, load_recipe
from asrkern.training.results import Row
from benchmarks._report import markdown_table
from benchmarks._timing import machine
from benchmarks.models._torch_twin import with_torch_layers, with_torch_operations

STOCK, ASRKERN = "torch", "asrkern"
TOLERANCE = 0.02  # of the first epoch's loss, which many steps make of rounding


class Turns(pl.Callback):
    """Trains an epoch when told to, and says when it is done: so two runs on one machine do not meet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def on_train_epoch_start(self, *_: Any) -> None:
        self._connection.send(None)
        self._connection.recv()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._connection.send(None)
        self._connection.send(len(trainer.datamodule.train.cuts))


def run(backend: str, recipe: Recipe, connection: Connection) -> None:
    """Train in this process; sends how many utterances an epoch has, and the rows of the run's table."""
    with ExitStack() as stack:
        if backend == STOCK:
            build = trainer.build
            stack.enter_context(mock.patch.object(trainer, "build", lambda *a, **k: _stock(build(*a, **k))))
            # asrkern's own loop of all steps of a speller: torch's user has cells.
            stack.enter_context(mock.patch.object(teacher_forcing, "can_spell", lambda *_: False))
            for name in ("training_step", "validation_step"):
                step = with_torch_operations(getattr(RecognitionModule, name))
                stack.enter_context(mock.patch.object(RecognitionModule, name, step))
        with tempfile.TemporaryDirectory() as folder:
            rows = trainer.train(recipe, folder, callbacks=[Turns(connection)]).rows
    connection.send(rows)


def _stock(model: nn.Module) -> nn.Module:
    return with_torch_layers(model).train()


def train_in_turns(recipe: Recipe) -> tuple[dict[str, list[Row]], int]:
    """Train with both backends, epoch by epoch: the rows of their tables, and how many utterances an epoch has."""
    spawn, ends = multiprocessing.get_context("spawn"), {}
    processes = []
    for backend in (STOCK, ASRKERN):
        ends[backend], other = spawn.Pipe()
        processes.append(spawn.Process(target=run, args=(backend, recipe, other), daemon=True))
        processes[-1].start()
        other.close()
    for end in ends.values():
        end.recv()
    for epoch in range(recipe.trainer.epochs):
        for end in list(ends.values())[:: 1 if epoch % 2 else -1]:
            end.send(None)
            end.recv()
    (utterances, _) = [end.recv() for end in ends.values()]
    rows = {backend: end.recv() for backend, end in ends.items()}
    for process in processes:
        process.join()
    return rows, utterances


def table(rows: dict[str, list[Row]], utterances: int) -> tuple[str, str | None]:
    """The table, and what differs in the first epoch, or None."""
    expected, found = (rows[backend][0]["train_loss"] for backend in (STOCK, ASRKERN))
    failure = None
    if not abs(found - expected) <= TOLERANCE * abs(expected):
        failure = f"FAILED: the loss of the first epoch is {found:.4g} for {expected:.4g}"
    cells = []
    seconds = {backend: median(row["seconds"] for row in taken[1:]) for backend, taken in rows.items()}
    for backend, taken in rows.items():
        last = taken[-1]
        cells.append(
            {
                "": backend,
                "s an epoch": f"{seconds[backend]:.1f}",
                "utterances/s": f"{utterances / seconds[backend]:.1f}",
                "peak MiB": f"{max(row['memory_mib'] for row in taken):.0f}",
                "loss of the first epoch": f"{taken[0]['train_loss']:.4f}",
                f"of epoch {last['epoch']}": f"{last['train_loss']:.4f}",
                "on valid": f"{last['valid_loss']:.4f}",
            }
        )
        if backend == ASRKERN and failure is None:
            cells[-1]["speed-up"] = f"{seconds[STOCK] / seconds[ASRKERN]:.2f}"
    return markdown_table(cells), failure


def plot(rows: dict[str, list[Row]], name: str, path: Path) -> None:
    """Losses over the seconds of training, on training utterances and on valid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for color, (backend, taken) in zip(("C0", "C1"), rows.items()):
        elapsed = torch.tensor([row["seconds"] for row in taken]).cumsum(0).tolist()
        for key, style in (("train_loss", "-"), ("valid_loss", "--")):
            losses = [row[key] for row in taken]
            axes.plot(
                elapsed, losses, style, color=color, marker=".", label=f"{backend}, {key.split('_')[0]}"
            )
    axes.set_title(name)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if the losses differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="as asrkern train takes them")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="both loss curves")
    arguments = parser.parse_args(argv)
    fixed = ["model.options.stats=padded", "trainer.tensorboard=false"]
    # The learning rate falls over the recipe's epochs: in few of them it is another training, but as long a one.
    recipe = load_recipe(arguments.recipe, ["trainer.epochs=3", *fixed, *arguments.changes])
    if recipe.trainer.epochs < 2:
        parser.error("trainer.epochs: expected 2 or more, of which the first one does not count")
    about = machine(torch.device("cpu"))
    print(
        f"{recipe.name}, {recipe.trainer.epochs} epochs on {about['cpu']}, {about['threads']} threads: "
        f"torch {about['torch']} ({about['torch_isa']}), asrkern ({about['asrkern_isa']})\n"
    )
    rows, utterances = train_in_turns(recipe)
    text, failure = table(rows, utterances)
    print(text)
    if arguments.plot:
        plot(rows, recipe.name, arguments.plot)
    if failure:
        print(failure)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
