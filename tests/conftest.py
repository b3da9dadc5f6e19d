"""Fixtures shared by all tests, and what each needs to run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of corpora, ASRKERN_DATA. CI has it, so that there a missing one is a failure, not a skip."""
    folder = os.environ.get("ASRKERN_DATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"needs speech corpora: set ASRKERN_DATA to a folder of manifests (now {folder!r})"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def threads():
    """Sets torch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
