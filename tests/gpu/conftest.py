"""Every test here needs a CUDA device, and takes asrkern's own kernels, their outputs poisoned with NaN."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _force(monkeypatch):
    monkeypatch.setenv("ASRKERN_CUDA", "force")
    monkeypatch.setenv("ASRKERN_CHECK", "1")
