"""The driver tells each kind of failure; each door takes inputs in this build, too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz.__main__ import doors

ROOT = Path(__file__).parents[1]
FUZZ = ROOT / "tests" / "fuzz"
DOOR = """
import os, time
REFUSALS = (ValueError,)
def prepare(folder):
    return 2
def one(rng, folder, two):
    assert two == 2 and folder.is_dir()
    kind = rng.integers(0, 300)
    if kind == 0: os.abort()
    if kind == 1: raise KeyError("kind")
    if kind == 2: bytearray(3 << 30)
    if kind < 100: raise ValueError
"""


def fuzz(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments], cwd=folder, capture_output=True, text=True
    )


def test_failures_are_told(tmp_path):
    package = tmp_path / "tests" / "fuzz"
    package.mkdir(parents=True)
    (tmp_path / "tests" / "__init__.py").touch()
    for name in ("__init__.py", "__main__.py", "_child.py"):
        shutil.copy(FUZZ / name, package)
    (package / "demo.py").write_text(DOOR)
    result = fuzz(tmp_path, "demo", "--inputs", "400", "--seed", "7")
    name, inputs, accepted, refused, failures, _ = result.stdout.splitlines()[-1].split()
    assert (result.returncode, name, inputs) == (1, "demo", "400"), result.stderr
    crashes, errors = result.stderr.count("ended the process: -6"), result.stderr.count("KeyError: 'kind'")
    memory = result.stderr.count("\nMemoryError")
    assert min(crashes, errors, memory) >= 1 and int(failures) == crashes + errors + memory
    assert 90 < int(refused) < 180 and int(accepted) > 200
    # One of them again.
    index = result.stderr.split("ended the process")[0].rsplit("input ", 1)[1].split()[0]
    assert fuzz(tmp_path, "demo", "--seed", "7", "--only", index).returncode == -6


def test_doors():
    result = fuzz(ROOT, "all", "--inputs", "60", "--seed", "20")
    told = [line.split()[:2] for line in result.stdout.splitlines()[1:]]
    assert told == [[door, "60"] for door in doors()] and result.returncode == 0, (
        result.stdout + result.stderr
    )
