"""Two builds of asrkern in one run: what a change costs or gains, call by call.

    git worktree add ../before v0.1.0 && pip install ... (or build it there) && python benchmarks/peers/builds.py ../before

Two processes make the calls of ``layers.py --quick`` and ``ctc_beam.py``, one with the package of the folder that is
named, one with the package of this one, by turns, another one first each time. Outputs are compared before anything is
timed. A pair of calls lies milliseconds apart, so that what else the machine does falls on both: the ratio is the median
of the pairs' ratios. Both builds need the names that this folder's benchmarks use.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

# Run as a script. Nothing here imports asrkern: the processes choose which one.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks._report import markdown_table
from benchmarks.peers import _build

HERE = Path(__file__).resolve().parents[2]
# Of the largest value; of scores absolute, for the beams' edges differ, and with them what the sums lack.
TOLERANCE = {"layers": 1e-4, "decoder": 0.05}
LEAST_PAIRS = 9


def difference(group: str, expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The largest one, of layers' outputs relative to the largest value; infinite where something is no number."""
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        apart = np.abs(a.astype(np.float64) - b).max(initial=0)
        relative = apart / max(np.abs(a).max(initial=0), 1e-30) if group == "layers" else apart
        worst = max(worst, float(np.nan_to_num(relative, nan=np.inf)))
    return worst


def _told(end: Connection, tree: Path) -> Any:
    try:
        return end.recv()
    except EOFError:
        sys.exit(f"{tree}: this build failed, see above; it may lack names that the benchmarks here import")


def rows(
    trees: Sequence[Path], group: str, wanted: str, data: str | None, threads: int, seconds: float
) -> Iterator[dict[str, str]]:
    """A table's row for each of the group's that has ``wanted`` in its name; no ``pairs`` where outputs differ."""
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for tree in trees:
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_build.serve, args=(str(tree), threads, group, wanted, data, theirs), daemon=True
        )
        process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
    while all(found := [_told(end, tree) for end, tree in zip(ends, trees)]):
        (name, text, expected), (_, other, actual) = found
        apart = difference(group, expected, actual)
        row = {"": name, "difference": f"{apart:.0e}" if text == other else "another text"}
        times: list[tuple[float, float]] = []
        stop = time.perf_counter() + seconds
        if text == other and apart <= TOLERANCE[group]:
            while len(times) < LEAST_PAIRS or time.perf_counter() < stop:
                order = (0, 1) if len(times) % 2 else (1, 0)
                pair = [0.0, 0.0]
                for side in order:
                    ends[side].send(True)
                    pair[side] = _told(ends[side], trees[side])
                times.append((pair[0], pair[1]))
            low, middle, high = quantiles([after / before for before, after in times], n=4)
            least = [1000 * min(pair[side] for pair in times) for side in (0, 1)]
            row |= {
                "before, least ms": f"{least[0]:.4g}",
                "after, least ms": f"{least[1]:.4g}",
                "pairs": str(len(times)),
                "after / before, least": f"{least[1] / least[0]:.3f}",
                "median of pairs (quartiles)": f"{middle:.3f} ({low:.2f}..{high:.2f})",
            }
        for end in ends:
            end.send(False)
        yield row
    for process in processes:
        process.join()


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if an output differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="folder of the other build, with asrkern/ and its modules")
    parser.add_argument("--only", choices=_build.GROUPS)
    parser.add_argument("--rows", default="", metavar="TEXT", help="only those with this in their names")
    parser.add_argument("--data", default=os.environ.get("ASRKERN_DATA"), help="as for ctc_beam.py")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each row, at least")
    arguments = parser.parse_args(argv)
    if not any((arguments.before / "asrkern").glob("_C*")):
        parser.error(f"before: expected a folder with a built asrkern/, received {str(arguments.before)!r}")
    passed = True
    for group in (arguments.only,) if arguments.only else _build.GROUPS:
        found = []
        trees = (arguments.before.resolve(), HERE)
        for row in rows(trees, group, arguments.rows, arguments.data, arguments.threads, arguments.seconds):
            print(".", end="", file=sys.stderr, flush=True)
            found.append(row)
            passed &= "pairs" in row
        print(markdown_table(found), flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
