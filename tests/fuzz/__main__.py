"""Runs doors over generated inputs; a crash, a hang, much memory or an exception that is no refusal is a failure.

python -m tests.fuzz ops --inputs 100000
python -m tests.fuzz all --seconds 120
python -m tests.fuzz ops --seed 7 --only 4711      # one input again, in this process
"""

from __future__ import annotations

import argparse
import importlib
import mmap
import os
import pkgutil
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

import tests.fuzz

# Of one input.
MOST_SECONDS = 20
MOST_BYTES = 2 << 30
MOST_FAILURES = 10
# What the child tells: the input that it is at, when that began, how many were accepted, refused and failed.
FIELDS = ("index", "began", "accepted", "refused", "failed")


def doors() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(tests.fuzz.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def run_one(door, seed: int, index: int, folder: Path, prepared: object) -> bool:
    """Whether the input was accepted."""
    try:
        door.one(np.random.default_rng([seed, index]), folder, prepared)
    except door.REFUSALS:
        return False
    return True


def load(name: str, folder: Path):
    door = importlib.import_module(f"tests.fuzz.{name}")
    return door, door.prepare(folder) if hasattr(door, "prepare") else None


def child(name: str, seed: int, first: int, end: int, seconds: float, board: Path) -> None:
    with board.open("r+b") as file:
        shared = np.frombuffer(mmap.mmap(file.fileno(), 0), np.float64)
    state = dict(zip(FIELDS, range(len(FIELDS))))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        door, prepared = load(name, folder)
        # A sanitizer claims most addresses for itself.
        if "libasan" not in os.environ.get("LD_PRELOAD", ""):
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES,) * 2)
        stop = time.monotonic() + seconds
        for index in range(first, end):
            now = time.monotonic()
            if now > stop:
                break
            shared[state["index"]], shared[state["began"]] = index, now
            try:
                accepted = run_one(door, seed, index, folder, prepared)
                shared[state["accepted" if accepted else "refused"]] += 1
            except Exception:
                shared[state["failed"]] += 1
                print(f"{name}: input {index} of seed {seed}:", file=sys.stderr)
                traceback.print_exc()
                if shared[state["failed"]] >= MOST_FAILURES:
                    break
        shared[state["index"]] = -1


def run_door(name: str, seed: int, inputs: int, seconds: float) -> dict[str, int]:
    """Run a door's inputs in child processes, a new one after each that ended early; returns the counts."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(8 * len(FIELDS))
        shared = np.frombuffer(mmap.mmap(file.fileno(), 0), np.float64)
        index, began, accepted, refused, failed = range(len(FIELDS))
        stop, first = time.monotonic() + seconds, 0
        while first < inputs and shared[failed] < MOST_FAILURES:
            shared[began] = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz", name, "--seed", str(seed), "--child", file.name,
                 "--first", str(first), "--inputs", str(inputs), "--seconds", str(max(0.0, stop - time.monotonic()))]
            )  # fmt: skip
            while process.poll() is None:
                time.sleep(0.05)
                # Starting a process takes long, too, on a busy machine.
                slack = MOST_SECONDS if shared[accepted] + shared[refused] > 0 else 6 * MOST_SECONDS
                if shared[index] >= 0 and time.monotonic() - shared[began] > slack:
                    process.kill()
            if shared[index] < 0:
                break
            shared[failed] += 1
            print(
                f"{name}: input {int(shared[index])} of seed {seed} ended the process: {process.returncode}",
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
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.door, options.seed, options.first, options.inputs, options.seconds, options.child)
        return 0
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
