"""Times asrkern's GPU kernels beside torch's (cuDNN, torch.compile) on one CUDA device.

    python benchmarks/qualification/gpu_bench.py gru conv --out rows.jsonl

Outputs are compared before anything is timed. A row counts only if asrkern's own kernels ran, which the profiler says;
each row is written as soon as it is there. ``gpu_check.py`` runs this after the tests of the kernels.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern._gpu_kernels import KERNELS
from benchmarks.qualification import _gpu_files
from benchmarks.qualification._gpu_cases import ARITHMETIC, ASRKERN, Backend, Case
from benchmarks.qualification._gpu_rows import GROUPS, TUNING, Row, rows
from benchmarks.qualification._gpu_timing import ceilings, float32_arithmetic, kernels_run, summary, time_call
from benchmarks.qualification._kernel_names import own_kernels, readable

ROOT = Path(__file__).resolve().parents[2]
SECONDS_PER_BACKEND = 0.1


def measure(row: Row, copy_gb_s: float | None) -> dict[str, Any]:
    """One row: what ran, how far off it was, and, unless that was too far, the times and what became of the goals."""
    arithmetic = ARITHMETIC[row.arithmetic]
    torch.manual_seed(0)
    with float32_arithmetic(arithmetic.tf32):
        case = row.build(arithmetic)
        found = _compared(case)
        if ASRKERN in found["wrong"]:
            return found
        found["times"] = {
            name: _timed(backend)._asdict()
            for name, backend in case.backends.items()
            if name not in found["wrong"]
        }
    medians = {name: timing["median"] for name, timing in found["times"].items()}
    if case.floor_bytes is not None and copy_gb_s is not None:
        found["floor_ms"] = case.floor_bytes / copy_gb_s / 1e6
    if case.audio_seconds is not None:
        found["rtfx"] = 1000 * case.audio_seconds / medians[ASRKERN]
    found["goals"] = {
        kind: {"goal": goal, "reached": reached(kind, medians, found)} for kind, goal in row.goals.items()
    }
    return found


def _compared(case: Case) -> dict[str, Any]:
    """errors of each backend; wrong: those beyond the tolerance; which kernels ran and whether all of asrkern's did."""
    errors = {
        name: case.error(case.expected, backend.outputs(backend.calls[0]()))
        for name, backend in case.backends.items()
    }
    run = kernels_run(case.backends[ASRKERN].calls[0])
    own: dict[str, float] = {}
    missing = []
    for kernel in case.kernels:
        these = own_kernels(run, [ROOT / KERNELS[kernel][0]])
        own |= these
        missing += [] if these else [kernel]
    slowest = sorted(own, key=own.get, reverse=True)[:3]
    return {
        "errors": errors,
        "tolerance": case.tolerance,
        "wrong": [name for name, error in errors.items() if not error <= case.tolerance],
        "kernels": dict(zip(readable(slowest), (own[name] for name in slowest))),
        "device_ms": sum(run.values()),
        "fallback": missing,
    }


def _timed(backend: Backend) -> Any:
    if not backend.host:
        return time_call(backend.calls, SECONDS_PER_BACKEND, graph=backend.graph)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        backend.calls[0]()
        times.append(1000 * (time.perf_counter() - start))
    return summary(times[1:], graph=False)


def reached(kind: str, medians: dict[str, float], found: dict[str, Any]) -> float | None:
    """The figure that a goal of this kind is about; None where there is nothing to compare with."""
    ours = medians[ASRKERN]
    if kind == "floor":
        return ours / found["floor_ms"] if "floor_ms" in found else None
    if kind == "rtfx":
        return found["rtfx"]
    others = {name: time for name, time in medians.items() if not name.startswith(ASRKERN)}
    name = kind.removeprefix("x ")
    if name != "best":
        return others[name] / ours if name in others else None
    return min(others.values()) / ours if others else None


def measured(
    group: str, quick: bool, deadline: float, copy_gb_s: float | None, done: Sequence[dict[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """The rows of a group, but for those that are done; those that fail or that there is no time for with the reason."""
    for row in rows(group, quick):
        about = {"group": group, "title": row.title, "row": row.name, "arithmetic": row.arithmetic}
        if about in [{key: other.get(key) for key in about} for other in done]:
            continue
        if time.monotonic() > deadline:
            yield {**about, "failed": "no time left"}
            continue
        try:
            yield {**about, **measure(row, copy_gb_s)}
        except Exception as error:
            # The next row may well run: every figure counts, the time on a device is short.
            said = str(error).splitlines()[0] if str(error) else ""
            yield {**about, "failed": f"{type(error).__name__}: {said[:200]}"}
        gc.collect()
        torch.cuda.empty_cache()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "groups",
        nargs="*",
        choices=["ceilings", *GROUPS, *TUNING],
        help="default: all but " + ", ".join(TUNING),
    )
    parser.add_argument("--out", type=Path, help="a file that each row is appended to, in JSON")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="for each group; then its rows are left out"
    )
    parser.add_argument("--copy-gb-s", type=float, help="the ceiling of copying; measured if not given")
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--resume", action="store_true", help="leave out what --out has figures of already")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        parser.error("needs a CUDA device")
    torch.backends.cudnn.benchmark = True

    def write(found: dict[str, Any]) -> None:
        line = json.dumps(found)
        print(line, flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(line + "\n")

    done = []
    if arguments.resume and arguments.out:
        done = [row for row in _gpu_files.read_rows(arguments.out) if "failed" not in row]
    groups, copy_gb_s = arguments.groups or ["ceilings", *GROUPS], arguments.copy_gb_s
    if "ceilings" in groups or copy_gb_s is None:
        found = ceilings(SECONDS_PER_BACKEND)
        copy_gb_s = found["copy_gb_s"]
        write({"group": "ceilings", **found})
    for group in groups:
        if group != "ceilings":
            deadline = time.monotonic() + arguments.seconds
            for found in measured(group, arguments.quick, deadline, copy_gb_s, done):
                write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
