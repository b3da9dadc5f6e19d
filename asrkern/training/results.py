"""What a run leaves for people: a row for each epoch as CSV and Markdown, and the learning curve."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrkern._atomic_write import atomic_write, write_text
from asrkern._optional import require
from asrkern.training.metrics import in_words, is_better

Row = dict[str, Any]


@dataclass
class Results:
    """The table of a run.

    Attributes:
        name: of the run.
        metric: the one in the columns ``train_metric`` and ``valid_metric``.
        notes: lines above the table.
        rows: one for each epoch: ``epoch``, ``train_loss``, ``valid_loss``, ``train_metric``, ``valid_metric``, ``lr``,
            ``infeasible`` (targets that did not fit into the output), ``skipped`` (steps without a finite gradient),
            ``seconds``, ``memory_mib`` (peak).
        constant: the metric of the best constant answer.
    """

    name: str
    metric: str
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    constant: float = math.nan

    def best(self) -> Row | None:
        """The row with the best metric on valid, the first of equals."""
        found: Row | None = None
        for row in self.rows:
            if found is None or is_better(self.metric, row["valid_metric"], found["valid_metric"]):
                found = row
        return found

    def add(self, row: Row) -> bool:
        """Add a row. It replaces rows of this and later epochs. Returns whether it is the best."""
        self.rows = [known for known in self.rows if known["epoch"] < row["epoch"]]
        self.rows.append(row)
        return self.best() is row

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``results.csv``, ``results.md`` and ``learning_curve.png`` into a folder.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: a file cannot be written; what was there before is untouched.
        """
        folder = Path(folder)
        write_text(folder / "results.csv", as_csv(self.rows))
        notes = "".join(f"{note}\n\n" for note in self.notes)
        table = as_markdown([self._renamed(row) for row in self.rows], self.metric)
        write_text(folder / "results.md", f"# {self.name}\n\n{notes}{table}")
        self._plot(folder / "learning_curve.png")

    def _renamed(self, row: Row) -> Row:
        """The row with the metric's name in the place of "metric"."""
        return {key.replace("metric", self.metric): value for key, value in row.items()}

    def _plot(self, path: Path) -> None:
        require("matplotlib", "train")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4), layout="constrained")
        for axes, name, label in zip(figure.subplots(1, 2), ("loss", "metric"), ("loss", self.metric)):
            epochs = [row["epoch"] for row in self.rows]
            for part in ("train", "valid"):
                axes.plot(epochs, [row[f"{part}_{name}"] for row in self.rows], marker=".", label=part)
            axes.set(xlabel="epoch", ylabel=label)
            axes.grid(alpha=0.3)
            if name == "metric" and not math.isnan(self.constant):
                axes.axhline(self.constant, color="gray", linestyle=":", label="constant answer")
            axes.legend()
        figure.suptitle(self.name)
        with atomic_write(path) as temporary:
            FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=120)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with equal keys as CSV with a header."""
    if not rows:
        return ""
    written = io.StringIO()
    writer = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]], metric: str = "") -> str:
    """Rows with equal keys as a Markdown table; columns of a metric are written for people."""
    if not rows:
        return ""
    names, rated = list(rows[0]), (f"train_{metric}", f"valid_{metric}")

    def cell(name: str, value: Any) -> str:
        return in_words(metric, value) if name in rated and isinstance(value, float) else _short(value)

    lines = [names, ["---"] * len(names), *([cell(name, row[name]) for name in names] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
