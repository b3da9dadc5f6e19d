"""Watches a run: looks at the model now and then, and says when something is wrong."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import nn

from asrkern._atomic_write import write_text
from asrkern.training.diagnostics.measures import LayerSignal, Measures, Probe, gradient_stds, measure
from asrkern.training.diagnostics.verdict import Verdict, diagnose
from asrkern.training.results import as_csv

_COLUMNS = tuple(
    f.name for f in fields(Measures) if f.name not in ("tokens", "target_tokens", "layers", "commonest")
)


class CollapseMonitor:
    """Keeps the losses of a run and what it has seen of the model.

    Call :meth:`step` for each step, and :meth:`look` when there is time. Before a look, call :meth:`take_gradients`
    between the last backward and the optimiser's step.

    Args:
        model: ``model(features, lengths)`` → log-probabilities [N, T', V], output lengths [N].
        probe: utterances to watch, 4 to 16 of the training set; on the model's device.
        labels: of the V classes.
        blank: index of the blank.
        patience: in steps. The loss has stopped falling when its mean over this many steps is less than 1 % below its
            mean over as many steps before.

    Raises:
        ValueError: patience or the probe is empty.
    """

    def __init__(
        self, model: nn.Module, probe: Probe, labels: Sequence[str], *, blank: int = 0, patience: int = 200
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience: expected at least 1 step, received {patience!r}")
        if len(probe.targets) < 2:
            raise ValueError(f"probe: expected at least two utterances, received {len(probe.targets)}")
        self.model, self.probe, self.labels, self.blank = model, probe, labels, blank
        self.patience = patience
        self.losses: list[float] = []
        self.looks: list[Measures] = []
        self.verdicts: list[Verdict] = []
        self._gradients: dict[str, float] = {}

    def step(self, loss: float) -> None:
        """Note a step's loss."""
        self.losses.append(loss)

    def take_gradients(self) -> None:
        """Note the present gradients of the parameters, for the next look."""
        self._gradients = gradient_stds(self.model)

    @property
    def plateau(self) -> bool:
        """Whether the loss has stopped falling."""
        recent, before = self.losses[-self.patience :], self.losses[-2 * self.patience : -self.patience]
        return len(before) == self.patience and statistics.fmean(recent) > 0.99 * statistics.fmean(before)

    def look(self) -> Verdict:
        """Measure the model on the probe and judge it."""
        measures = measure(
            self.model, self.probe, self.labels, blank=self.blank, step=len(self.losses),
            loss=self.losses[-1] if self.losses else float("nan"), gradients=self._gradients,
        )  # fmt: skip
        verdict = diagnose(measures, self.model, self.labels, spaces=self.probe.spaces, plateau=self.plateau)
        self.looks.append(measures)
        self.verdicts.append(verdict)
        return verdict

    def state(self) -> dict[str, Any]:
        """Losses and looks, for :meth:`restore`."""
        looks = [
            {**asdict(m), "tokens": dict(m.tokens), "target_tokens": dict(m.target_tokens)}
            for m in self.looks
        ]
        return {"losses": list(self.losses), "looks": looks, "verdicts": [asdict(v) for v in self.verdicts]}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.losses = list(state["losses"])
        self.looks = [
            Measures(**{**look, "layers": tuple(LayerSignal(**layer) for layer in look["layers"])})
            for look in state["looks"]
        ]
        self.verdicts = [Verdict(**verdict) for verdict in state["verdicts"]]

    def table(self) -> str:
        """A row for each look, in Markdown."""
        names = ("step", "loss", "blank", "entropy", "dependence", "dropout noise", "CER", "verdict")
        rows = [
            f"| {m.step} | {m.loss:.3f} | {m.blank_fraction:.1%} | {m.entropy:.3f} | {m.dependence:.3f} "
            f"| {m.dropout_noise:.3f} | {m.error_rate:.1%} | {v.name} |"
            for m, v in zip(self.looks, self.verdicts)
        ]
        return "\n".join(["| " + " | ".join(names) + " |", "|---" * len(names) + "|", *rows])

    def layer_table(self) -> str:
        """The layers as the latest look saw them, in Markdown."""
        names = ("layer", "kind", "std between frames", "of its size", "gradient std")
        rows = [
            f"| {s.name} | {s.kind} | {s.std:.2e} | {s.variation:.2e} | "
            f"{'' if s.gradient_std is None else f'{s.gradient_std:.2e}'} |"
            for s in self.looks[-1].layers
        ]
        return "\n".join(["| " + " | ".join(names) + " |", "|---" * len(names) + "|", *rows])

    def write(self, folder: Path) -> None:
        """Write ``diagnosis.md``, ``diagnosis.csv`` and, with matplotlib, ``diagnosis.png`` into a folder that exists."""
        from asrkern.training.diagnostics.plot import plot

        if not self.looks:
            return
        parts = [str(self.verdicts[-1]), self.table(), self.layer_table()]
        write_text(folder / "diagnosis.md", "\n\n".join(parts) + "\n")
        rows = [
            {**{name: getattr(m, name) for name in _COLUMNS}, "verdict": verdict.name}
            for m, verdict in zip(self.looks, self.verdicts)
        ]
        write_text(folder / "diagnosis.csv", as_csv(rows))
        plot(self, folder / "diagnosis.png")
