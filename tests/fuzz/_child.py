"""The inputs of a door, in a process of their own."""

from __future__ import annotations

import importlib
import mmap
import os
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

# Of one input.
MOST_BYTES = 2 << 30
MOST_FAILURES = 10
# What the child tells: the input that it is at, when that began, how many were accepted, refused and failed.
FIELDS = ("index", "began", "accepted", "refused", "failed")


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
