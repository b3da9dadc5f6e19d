"""The picture of docs/train_ctc.md: the diagnosis of a model that does not learn beside that of one that does.

    asrkern train recipes/s1_original.toml trainer.epochs=2 && asrkern train recipes/s1_grid.toml
    python docs/collapse_picture.py runs/s1_original runs/s1_grid

RUN: a folder of `asrkern train` with a diagnosis. Needs the extra plot. The picture goes to docs/pictures/.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent

# Column of diagnosis.csv → what it is, the scale, and the least that is drawn: a dependence may be 0.
MEASURES = {
    "error_rate": ("errors per label", "linear", 0.0),
    "blank_fraction": ("share of blank frames", "linear", 0.0),
    "dependence": ("dependence on the utterance, nats", "log", 1e-8),
}


def read(run: Path) -> list[dict[str, str]]:
    """The looks of a run's diagnosis."""
    with open(run / "diagnosis.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(runs: list[Path]) -> Figure:
    """All measures of all runs over the steps of training."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (column, (title, scale, least)) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items()):
        for run in runs:
            looks = read(run)
            label = f"{run.name}: {looks[-1]['verdict']}"
            steps = [int(look["step"]) for look in looks]
            axes.plot(steps, [max(float(look[column]), least) for look in looks], label=label)
        axes.set(title=title, xlabel="step", xscale="log", yscale=scale)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    return figure


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, default=HERE / "pictures" / "collapse.png")
    given = parser.parse_args(argv)
    FigureCanvasAgg(draw(given.runs)).print_figure(given.out, dpi=100)
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
