"""Fixtures shared by all tests, and what each needs to run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from asrkern._optional import import_torchaudio


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _lacking(reason: str):
    """Skip, but not in CI, which has everything."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of corpora, ASRKERN_DATA."""
    folder = os.environ.get("ASRKERN_DATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    _lacking(f"needs speech corpora: set ASRKERN_DATA to a folder of manifests (now {folder!r})")


@pytest.fixture(scope="session")
def torchaudio():
    """The module, where it imports beside this torch."""
    try:
        return import_torchaudio()
    except ImportError as error:
        _lacking(str(error))


@pytest.fixture(scope="session")
def torchaudio_ctc_decoder(torchaudio):
    """torchaudio's function, whose search is flashlight-text's."""
    try:
        from torchaudio.models.decoder import ctc_decoder
    except ImportError as error:
        _lacking(f"needs flashlight-text: {error}")
    return ctc_decoder


@pytest.fixture
def threads():
    """Sets torch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
