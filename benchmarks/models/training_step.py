"""A step of training, by stock torch's layers and by asrkern's: seconds, their ratio, and peak memory.

    python benchmarks/models/training_step.py                              each recurrent model, at its recipe's batch
    python benchmarks/models/training_step.py las_hw4 --utterances 16

A step is forward, loss with the targets as input where the model takes some, backward and Adam, which takes a step of 0.
Stock recurrent layers run on packed sequences, as batches of real utterances need it. Here all of a batch have one
length, so that torch's batch norms count what asrkern's count. The loss and the gradients of all weights are
compared before anything is timed, without dropout: a model in which they differ has no times, and the exit status is 1.
Memory is the peak of a process of its own, while it takes a step.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.models import LAS, registry, teacher_forcing
from asrkern.models.losses import cross_entropy, ctc_loss
from asrkern.nn import LockedDropout
from benchmarks._report import Progress, markdown_table, milliseconds
from benchmarks._timing import interleaved, machine, peak_memory_mib
from benchmarks.models._torch_twin import with_torch_layers, with_torch_operations

CPU = torch.device("cpu")
STOCK, ASRKERN = "torch", "asrkern"
# Of the loss, and of all gradients as one vector: float32 sums whose order differs, and max-pools that choose by it.
TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-2


class Batch(NamedTuple):
    """utterances of so many frames, with so many tokens each."""

    utterances: int
    frames: int
    tokens: int


# What the recipes of these models train on: clips of a word, GRID's sentences, Korean sentences, LibriSpeech.
BATCHES = {
    "conv_rnn": Batch(32, 101, 1),
    "vgg_gru_ctc": Batch(8, 300, 25),
    "las_hw4": Batch(96, 1250, 180),
    "las_hw4_mobile": Batch(96, 1250, 180),
    "las_kospeech": Batch(32, 500, 25),
    "deepspeech2_small": Batch(16, 1250, 180),
    "deepspeech2_mlperf": Batch(16, 1250, 180),
}


class Training:
    """Steps of a model on one batch of random features and targets."""

    def __init__(self, name: str, batch: Batch, backend: str, dropout: bool = True) -> None:
        torch.manual_seed(0)
        model = registry.build(name)
        self._stock = backend == STOCK
        self.model = (with_torch_layers(model) if self._stock else model).train()
        if not dropout:
            for module in self.model.modules():
                if isinstance(module, nn.Dropout | LockedDropout):
                    module.p = 0.0
                elif isinstance(module, nn.RNNBase):
                    module.dropout = 0.0
        self._features = torch.randn(batch.utterances, model.n_features, batch.frames)
        self._lengths = torch.full((batch.utterances,), batch.frames)
        self._task = registry.find(name).task
        # The first or the last three are special where there are many.
        low = 0 if self._task == "classify" else 3
        self._targets = torch.randint(low, model.n_classes - low, (batch.utterances, batch.tokens))
        self._target_lengths = torch.full((batch.utterances,), batch.tokens)
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0)

    def loss(self) -> Tensor:
        """Forward, in this backend's operations."""
        with ExitStack() as stack:
            run = self._loss
            if self._stock:
                # asrkern's own loop of all steps: torch's user has cells.
                stack.enter_context(mock.patch.object(teacher_forcing, "can_spell", lambda *_: False))
                run = with_torch_operations(run)
            return run()

    def _loss(self) -> Tensor:
        targets = self._targets, self._target_lengths
        if isinstance(self.model, LAS):
            return self.model.loss(self.model(self._features, self._lengths, *targets).logits, *targets)
        if self._task == "classify":
            return cross_entropy(self.model(self._features, self._lengths), self._targets[:, 0])
        log_probs, lengths = self.model(self._features, self._lengths)
        return ctc_loss(log_probs, lengths, *targets, blank=0)

    def gradients(self) -> tuple[float, Tensor]:
        """The loss, and all gradients in one vector."""
        self._optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        return float(loss.detach()), torch.cat(
            [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        )

    def __call__(self) -> None:
        self._optimizer.zero_grad()
        self.loss().backward()
        self._optimizer.step()


def compare(name: str, batch: Batch) -> str | None:
    """What differs between the backends, or None."""
    (expected, stock), (loss, ours) = (
        Training(name, batch, backend, dropout=False).gradients() for backend in (STOCK, ASRKERN)
    )
    error = float((ours - stock).norm() / stock.norm()) if ours.shape == stock.shape else float("inf")
    if not abs(loss - expected) <= TOLERANCE * abs(expected) or not error <= GRADIENT_TOLERANCE:
        return f"FAILED: loss {loss:.6g} for {expected:.6g}, gradients {error:.0e}"
    return None


def measure(name: str, batch: Batch, rounds: int, memory: Callable[..., float]) -> dict[str, str]:
    """Compare, then time: the cells of one row by the header of their columns."""
    row = {"": name, "utterances × frames, tokens": f"{batch.utterances} × {batch.frames}, {batch.tokens}"}
    # The comparison needs no more than a few rows.
    failure = compare(name, batch._replace(utterances=min(batch.utterances, 4)))
    if failure is not None:
        return {**row, "asrkern s": failure}
    # First: what this process has taken, it keeps, and not all of it fits twice.
    peaks = {backend: memory(CPU, Training, name, batch, backend) for backend in (STOCK, ASRKERN)}
    steps = {backend: Training(name, batch, backend) for backend in (STOCK, ASRKERN)}
    for step in steps.values():
        step()
    times = interleaved(steps, rounds=rounds, seconds=0.0)
    return {
        **row,
        **{f"{backend} ms": milliseconds(taken) for backend, taken in times.items()},
        "rounds": str(rounds),
        f"{STOCK} / {ASRKERN}": f"{median(times[STOCK]) / median(times[ASRKERN]):.2f}",
        **{f"{backend} MiB": f"{peak:.0f}" for backend, peak in peaks.items()},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if a loss or a gradient differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(BATCHES))
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="for each model (3)")
    for field in Batch._fields:
        parser.add_argument(f"--{field}", type=int, metavar="N", help="in place of the recipe's")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.models if name not in BATCHES]:
        parser.error(f"expected some of {', '.join(BATCHES)}, received {unknown[0]!r}")
    changes = {field: getattr(arguments, field) for field in Batch._fields}
    changes = {field: value for field, value in changes.items() if value is not None}
    for name, value in {**changes, "rounds": arguments.rounds}.items():
        if value < 1:
            parser.error(f"argument --{name}: expected a positive integer, received {value}")
    about = machine(CPU)
    print(
        f"{about['cpu']}, {about['threads']} threads: torch {about['torch']} ({about['torch_isa']}), "
        f"asrkern ({about['asrkern_isa']}). A step's milliseconds: median (least..most).\n"
    )
    names, progress, rows = arguments.models or list(BATCHES), Progress(), []
    progress.start("steps", len(names))
    for name in names:
        rows.append(measure(name, BATCHES[name]._replace(**changes), arguments.rounds, peak_memory_mib))
        progress.step()
    progress.end()
    print(markdown_table(rows))
    return 0 if all("rounds" in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
