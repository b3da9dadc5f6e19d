"""Runs doors over generated inputs; a crash, a hang, much memory or an exception that is no refusal is a failure.

python -m tests.fuzz ops --inputs 100000
python -m tests.fuzz all --seconds 120
python -m tests.fuzz ops --seed 7 --only 4711      # one input again, in this process
"""

from __future__ import annotations

import argparse
import mmap
import multiprocessing
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tests.fuzz
from tests.fuzz._child import FIELDS, MOST_FAILURES, child, load, run_one

# Of one input.
MOST_SECONDS = 20
# Children are forked from a process that has these, and has done nothing with them: importing takes longer than some doors.
PRELOADED = ("asrkern.models", "asrkern.decoder", "asrkern.recognizer")


def doors() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(tests.fuzz.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def run_door(name: str, seed: int, inputs: int, seconds: float) -> dict[str, int]:
    """Run a door's inputs in child processes, a new one after each that ended early; returns the counts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(8 * len(FIELDS))
        shared = np.frombuffer(mmap.mmap(file.fileno(), 0), np.float64)
        index, began, accepted, refused, failed = range(len(FIELDS))
        stop, first = time.monotonic() + seconds, 0
        while first < inputs and shared[failed] < MOST_FAILURES:
            shared[began] = time.monotonic()
            left = max(0.0, stop - time.monotonic())
            process = context.Process(target=child, args=(name, seed, first, inputs, left, Path(file.name)))
            process.start()
            while process.exitcode is None:
                process.join(0.05)
                # Starting a process takes long, too, on a busy machine.
                slack = MOST_SECONDS if shared[accepted] + shared[refused] > 0 else 6 * MOST_SECONDS
                if shared[index] >= 0 and time.monotonic() - shared[began] > slack:
                    process.kill()
            if shared[index] < 0:
                break
            shared[failed] += 1
            print(
                f"{name}: input {int(shared[index])} of seed {seed} ended the process: {process.exitcode}",
                file=sys.stderr,
            )
            first = int(shared[index]) + 1
        return {
            field: int(shared[i])
            for i, field in enumerate(FIELDS)
            if field in ("accepted", "refused", "failed")
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("door", choices=[*doors(), "all"])
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="of each door")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of all doors together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="INDEX", help="this input alone, in this process")
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            door, prepared = load(options.door, Path(folder))
            print(
                "accepted" if run_one(door, options.seed, options.only, Path(folder), prepared) else "refused"
            )
        return 0
    if options.inputs == sys.maxsize and options.seconds == float("inf"):
        parser.error("expected --inputs, --seconds or both")
    names = doors() if options.door == "all" else [options.door]
    failures = 0
    print(f"{'door':<16} {'inputs':>8} {'accepted':>9} {'refused':>8} {'failures':>9} {'seconds':>8}")
    for name in names:
        start = time.monotonic()
        counts = run_door(name, options.seed, options.inputs, options.seconds / len(names))
        total = sum(counts.values())
        print(
            f"{name:<16} {total:>8} {counts['accepted']:>9} {counts['refused']:>8} {counts['failed']:>9} "
            f"{time.monotonic() - start:>8.1f}",
            flush=True,
        )
        failures += counts["failed"] + (total == 0)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
