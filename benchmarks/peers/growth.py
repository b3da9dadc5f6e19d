"""How the time of each operation grows with T, H and N: of a bidirectional GRU in every runtime that is installed, of
the others in stock torch and asrkern.

    python benchmarks/peers/growth.py                       all of them
    python benchmarks/peers/growth.py lstm_cell speller

Compared and timed as in layers.py. Prints a table for each operation and dimension, and writes growth.csv and, with
matplotlib, growth.png to benchmarks/results: of this run, nothing of the one before. A failed comparison writes nothing,
and the exit status is 1.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks._report import Progress, markdown_table, plot_growth
from benchmarks._timing import interleaved, relative_error
from benchmarks.ops.attention import Attention
from benchmarks.ops.case import Case
from benchmarks.ops.cell import Cell, FrozenCell
from benchmarks.ops.linear import LinearQuantized
from benchmarks.ops.run import calls
from benchmarks.ops.speller import Speller
from benchmarks.ops.transformer import TransformerLayer
from benchmarks.peers import layers
from benchmarks.shapes import GROWTH

# By the field of a shape.
LETTERS = {
    **dict.fromkeys(("hidden_size", "size", "in_features"), "H"),
    **dict.fromkeys(("batch", "rows"), "N"),
    **dict.fromkeys(("steps", "frames"), "T"),
}
COLUMNS = tuple(dict.fromkeys(LETTERS.values()))
# What makes the operands of the operations that layers.py does not have.
CASES: dict[str, Callable[[Any], Case]] = {
    "lstm_cell": Cell,
    "lstm_cell_prepacked": FrozenCell,
    "linear_quantized": LinearQuantized,
    "speller": Speller,
    "attention": Attention,
    "transformer": TransformerLayer,
}


def measure_case(case: Case, shape: Any, *, rounds: int, seconds: float) -> dict[str, Any]:
    """As layers.measure does."""
    both = calls(case, training=False)
    expected = both[layers.TORCH]()
    errors = {backend: relative_error(expected, call()) for backend, call in both.items()}
    found: dict[str, Any] = {"row": shape, "errors": errors}
    if not layers.wrong(errors):
        found["times"] = interleaved(both, rounds=rounds, seconds=seconds)
    return found


def measure(operation: str, dimension: str) -> list[dict[str, Any]]:
    """What is found for each shape in which this dimension varies."""
    shapes, progress, results = GROWTH[operation][dimension], Progress(), []
    progress.start(f"{operation} {LETTERS[dimension]}", len(shapes))
    for shape in shapes:
        if operation in CASES:
            results.append(measure_case(CASES[operation](shape), shape, **layers.QUICK))
        else:
            results.append(layers.measure(operation, shape, **layers.QUICK))
        progress.step()
    progress.end()
    return results


def extents(shape: Any) -> dict[str, Any]:
    """H, N and T of a shape, as far as it has them."""
    return {letter: getattr(shape, name) for name, letter in LETTERS.items() if hasattr(shape, name)}


def write_csv(measured: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["operation", "varied", *COLUMNS, "backend", "median_ms", "least_ms", "most_ms", "rounds"]
        )
        for operation, dimensions in measured.items():
            for dimension, results in dimensions.items():
                for found in results:
                    for backend, times in found["times"].items():
                        numbers = [f"{1000 * x:.4g}" for x in (median(times), min(times), max(times))]
                        shape = [extents(found["row"]).get(letter, "") for letter in COLUMNS]
                        row = [operation, LETTERS[dimension], *shape, backend, *numbers, len(times)]
                        writer.writerow(row)


def lines(dimension: str, results: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """By backend, its median milliseconds over this dimension."""
    return {
        backend: [
            (getattr(found["row"], dimension), 1000 * median(found["times"][backend])) for found in results
        ]
        for backend in results[0]["times"]
    }


def fixed(operation: str, dimension: str) -> str:
    """The dimension and the values of the others."""
    varied = LETTERS[dimension]
    values = extents(GROWTH[operation][dimension][0])
    others = [f"{letter}={value}" for letter, value in values.items() if letter != varied]
    return f"{operation}: {varied} ({', '.join(others)})"


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if an output differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=", ".join(GROWTH))
    parser.add_argument("--results", type=Path, default=layers.RESULTS.parent, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.operations if name not in GROWTH]:
        parser.error(f"expected some of {', '.join(GROWTH)}, received {unknown[0]!r}")
    folder = arguments.results
    print(layers.describe("growth.py", argv))
    measured: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for operation in arguments.operations or GROWTH:
        measured[operation] = {}
        for dimension in GROWTH[operation]:
            results = measured[operation][dimension] = measure(operation, dimension)
            print(f"\n{fixed(operation, dimension)}\n")
            print(markdown_table(list(map(layers.table_row, results))), flush=True)
    found = [f for dimensions in measured.values() for results in dimensions.values() for f in results]
    if not all("times" in f for f in found):
        return 1
    folder.mkdir(exist_ok=True)
    write_csv(measured, folder / "growth.csv")
    if importlib.util.find_spec("matplotlib") is None:
        print("growth.png is not written: it needs matplotlib (pip install matplotlib)")
    else:
        panels = [
            {fixed(operation, dimension): lines(dimension, results) for dimension, results in found.items()}
            for operation, found in measured.items()
        ]
        plot_growth(panels, folder / "growth.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
