"""CONTRIBUTING's ways of an utterance and of a recipe: files that are there and hold what is said of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
# Of each way the numbered steps.
WAYS = {
    thing: re.split(r"^\d+\. ", section, flags=re.M)[1:]
    for thing, section in re.findall(r"^## An? (\w+)'s way.*?\n(.*?)(?=^## )", CONTRIBUTING, re.M | re.S)
}
STEPS = [
    pytest.param(step, id=f"{thing}-{i}") for thing, steps in WAYS.items() for i, step in enumerate(steps, 1)
]


@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_in_a_file(step: str) -> None:
    quoted = re.findall(r"`([^`\n]+)`", step)
    paths = [ROOT / word for word in quoted if "/" in word]
    assert paths and all(path.is_file() for path in paths), paths
    code = "\n".join(path.read_text("utf-8") for path in paths)
    for name in (word for word in quoted if "/" not in word):
        assert re.search(rf"\b{name}\b", code), name


def test_an_utterance_takes_ten_steps_from_the_command_to_the_kernels() -> None:
    assert {thing: len(steps) for thing, steps in WAYS.items()} == {"utterance": 10, "recipe": 7}
    steps = WAYS["utterance"]
    assert "`asrkern/cli/" in steps[0]
    assert any("`csrc/ops/" in step for step in steps) and any("/cpu/" in step for step in steps)
