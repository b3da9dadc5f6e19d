"""Fixtures shared by all tests, and what each needs to run."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

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
    """The module, of which asrkern itself needs nothing: an independent opinion. Its compiled libraries link CUDA and
    do not load beside every torch; where they do not, its Python functions do without them."""
    try:
        return importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        _lacking(f"needs torchaudio: {error}")
    except (ImportError, OSError):
        without = ModuleType("torchaudio._extension")
        without._IS_TORCHAUDIO_EXT_AVAILABLE = False
        without.fail_if_no_align = lambda function: _no_libraries
        sys.modules["torchaudio._extension"] = without
        return importlib.import_module("torchaudio")


def _no_libraries(*_, **__):
    raise RuntimeError("torchaudio's compiled libraries do not load beside this torch")


@pytest.fixture(scope="session")
def torchaudio_ctc_decoder(torchaudio):
    """torchaudio's function, whose search is flashlight-text's."""
    try:
        from torchaudio.models.decoder import ctc_decoder
    except (ImportError, RuntimeError) as error:
        _lacking(f"needs flashlight-text: {error}")
    return ctc_decoder


@pytest.fixture
def threads():
    """Sets torch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
