"""Each operation by stock torch and by asrkern on the CPU: times, and their ratio.

    python benchmarks/ops/run.py                            all of them
    python benchmarks/ops/run.py gru lstm --rows H=512

Outputs and gradients are compared before anything is timed: a row in which they differ has no times, and the exit status
is 1. Each round runs both once, another one first each time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks._report import Progress, markdown_table, milliseconds, section
from benchmarks._timing import interleaved, machine
from benchmarks.ops.case import Case
from benchmarks.ops.registry import OPERATIONS

STOCK, ASRKERN = "torch", "asrkern"
# Relative to the largest value, of an output and of gradients: float32 sums whose order differs.
TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


def calls(case: Case, training: bool) -> dict[str, Callable[[], Sequence[Tensor]]]:
    """By backend: the output in inference, or the gradients of all inputs."""
    backends = {STOCK: case.stock, ASRKERN: case.asrkern}
    if not training:
        return {
            name: torch.inference_mode()(lambda run=run: [run(training=False)])
            for name, run in backends.items()
        }
    inputs, gradient = [x.requires_grad_() for x in case.inputs], case.output_gradient()
    return {
        name: lambda run=run: torch.autograd.grad(run(training=True), inputs, gradient)
        for name, run in backends.items()
    }


def measure(case: Case, training: bool, rounds: int, seconds: float) -> dict[str, str]:
    """Compare, then time: the cells of one row by the header of their columns."""
    both = calls(case, training)
    error = case.error(both[STOCK](), both[ASRKERN]())
    if not error <= (GRADIENT_TOLERANCE if training else TOLERANCE):
        return {"largest error": f"FAILED: {error:.0e}"}
    times = interleaved(both, rounds=rounds, seconds=seconds)
    return {
        **{f"{name} ms": milliseconds(taken) for name, taken in times.items()},
        "rounds": str(len(times[STOCK])),
        "largest error": f"{error:.0e}",
        f"{STOCK} / {ASRKERN}": f"{median(times[STOCK]) / median(times[ASRKERN]):.2f}",
    }


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=", ".join(OPERATIONS))
    parser.add_argument("--rows", default="", metavar="TEXT", help="only rows whose names have it")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="for each row, at least (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row, at least (1)")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.operations if name not in OPERATIONS]:
        parser.error(f"expected some of {', '.join(OPERATIONS)}, received {unknown[0]!r}")
    arguments.operations = arguments.operations or list(OPERATIONS)
    names = [row for name in arguments.operations for rows in OPERATIONS[name] for row in rows]
    if not any(arguments.rows in row for row in names):
        parser.error(
            f"argument --rows: expected part of a row's name, such as {names[0]!r}, received {arguments.rows!r}"
        )
    if arguments.rounds < 1:
        parser.error(f"argument --rounds: expected a positive integer, received {arguments.rounds}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if an output or a gradient differed."""
    arguments = parse_arguments(argv)
    about = machine(torch.device("cpu"))
    print(
        f"{about['cpu']}, {about['threads']} threads: torch {about['torch']} ({about['torch_isa']}), "
        f"asrkern ({about['asrkern_isa']}). Milliseconds: median (least..most).\n"
    )
    passed = True
    for name in arguments.operations:
        for training, rows in zip((False, True), OPERATIONS[name]):
            chosen = {row: make for row, make in rows.items() if arguments.rows in row}
            if not chosen:
                continue
            progress, table = Progress(), []
            progress.start(name, len(chosen))
            for row, make in chosen.items():
                found = measure(make(), training, arguments.rounds, arguments.seconds)
                table.append({"": row, **found})
                passed = passed and "rounds" in found
                progress.step()
            progress.end()
            title = f"{name} forward{' + backward' if training else ''}"
            print(section(title, markdown_table(table)), flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
