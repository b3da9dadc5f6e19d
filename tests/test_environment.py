"""The list of environment variables is whole, and each of them is read."""

from __future__ import annotations

import re
from pathlib import Path

from asrkern._environment import VARIABLES

ROOT = Path(__file__).parents[1]
# A name alone in quotes is one that is read; what is written for people stands within a sentence.
NAME = re.compile(r'"(ASRKERN_[A-Z_]+)"')


def test_every_variable_that_is_read_is_listed() -> None:
    sources = [
        path
        for room in ("asrkern", "csrc", "kernels")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".h", ".cpp", ".cu", ".cuh") and path.name != "_environment.py"
    ]
    read = {name for path in (*sources, ROOT / "setup.py") for name in NAME.findall(path.read_text("utf-8"))}
    assert read == set(VARIABLES)


def test_they_are_in_order_and_said_in_sentences() -> None:
    assert list(VARIABLES) == sorted(VARIABLES)
    assert all(variable.values and variable.effect.endswith(".") for variable in VARIABLES.values())
