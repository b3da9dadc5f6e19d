"""How the time of a bidirectional GRU grows with T, H and N, in every runtime that is installed.

    python benchmarks/peers/growth.py

Compared and timed as in layers.py. Prints a table for each of the three, and writes growth.csv and, with matplotlib,
growth.png to benchmarks/results. A failed comparison writes nothing, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks._report import Progress, markdown_table, plot_growth
from benchmarks.peers import layers
from benchmarks.shapes import GRU_GROWTH

LETTERS = {"hidden_size": "H", "batch": "N", "steps": "T"}


def measure(dimension: str) -> list[dict[str, Any]]:
    """What layers.measure finds for each shape in which this dimension varies."""
    shapes, progress, results = GRU_GROWTH[dimension], Progress(), []
    progress.start(LETTERS[dimension], len(shapes))
    for shape in shapes:
        results.append(layers.measure("gru", shape, **layers.QUICK))
        progress.step()
    progress.end()
    return results


def write_csv(measured: dict[str, list[dict[str, Any]]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["varied", *LETTERS.values(), "backend", "median_ms", "least_ms", "most_ms", "rounds"]
        )
        for dimension, results in measured.items():
            for found in results:
                for backend, times in found["times"].items():
                    numbers = [f"{1000 * x:.4g}" for x in (median(times), min(times), max(times))]
                    shape = [getattr(found["row"], name) for name in LETTERS]
                    writer.writerow([LETTERS[dimension], *shape, backend, *numbers, len(times)])


def lines(dimension: str, results: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """By backend, its median milliseconds over this dimension."""
    return {
        backend: [
            (getattr(found["row"], dimension), 1000 * median(found["times"][backend])) for found in results
        ]
        for backend in results[0]["times"]
    }


def fixed(dimension: str) -> str:
    """The dimension and the values of the others."""
    shape = GRU_GROWTH[dimension][0]
    others = [f"{LETTERS[other]}={getattr(shape, other)}" for other in LETTERS if other != dimension]
    return f"{LETTERS[dimension]} ({', '.join(others)})"


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if an output differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=layers.RESULTS.parent, metavar="FOLDER")
    folder = parser.parse_args(argv).results
    print(layers.describe("growth.py", argv))
    measured = {}
    for dimension in GRU_GROWTH:
        measured[dimension] = measure(dimension)
        print("", markdown_table(list(map(layers.table_row, measured[dimension]))), sep="\n", flush=True)
    if not all("times" in found for results in measured.values() for found in results):
        return 1
    folder.mkdir(exist_ok=True)
    write_csv(measured, folder / "growth.csv")
    if importlib.util.find_spec("matplotlib") is None:
        print("growth.png is not written: it needs matplotlib (pip install matplotlib)")
    else:
        panels = {fixed(dimension): lines(dimension, results) for dimension, results in measured.items()}
        plot_growth(panels, folder / "growth.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
