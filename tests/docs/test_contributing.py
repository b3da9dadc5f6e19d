"""CONTRIBUTING's way of an utterance is the one that it takes: files that are there and say what it says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = re.search(
    r"^## An utterance's way.*?\n(.*?)^## ", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M | re.S
)
STEPS = re.split(r"^\d+\. ", SECTION[1], flags=re.M)[1:]


@pytest.mark.parametrize("step", STEPS, ids=range(1, len(STEPS) + 1))
def test_each_step_is_in_a_file(step: str) -> None:
    quoted = re.findall(r"`([^`\n]+)`", step)
    paths = [ROOT / word for word in quoted if "/" in word]
    assert paths and all(path.is_file() for path in paths), paths
    code = "\n".join(path.read_text("utf-8") for path in paths)
    for name in (word for word in quoted if "/" not in word):
        assert re.search(rf"\b{name}\b", code), name


def test_it_is_ten_steps_from_the_command_to_the_kernels() -> None:
    assert len(STEPS) == 10 and "asrkern/cli/" in STEPS[0]
    assert any("`csrc/ops/" in step for step in STEPS) and any("`kernels/cpu/" in step for step in STEPS)
