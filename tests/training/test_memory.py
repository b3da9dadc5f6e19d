"""The peak of memory, and what is given back."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from asrkern.training.memory import peak_memory_mib, release_memory, reset_peak_memory


def test_peak_memory_is_that_since_it_was_reset() -> None:
    reset_peak_memory()
    before = peak_memory_mib()
    block = np.ones(64 << 17)  # 64 MiB
    assert peak_memory_mib() - before > 50
    del block
    if Path("/proc/self/clear_refs").exists():
        reset_peak_memory()
        assert peak_memory_mib() - before < 30


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_freed_memory_is_given_back() -> None:
    """Small blocks between large ones, which are freed: the heap cannot shrink at its end."""
    blocks = [bytearray(100_000) for _ in range(1000)]
    reset_peak_memory()
    full = peak_memory_mib()
    kept = blocks[::50]
    del blocks
    release_memory()
    reset_peak_memory()
    assert full - peak_memory_mib() > 70
    assert len(kept) == 20

    class Cycle:
        def __init__(self) -> None:
            self.itself, self.content = self, bytearray(50 * 2**20)

    Cycle()
    reset_peak_memory()
    full = peak_memory_mib()
    release_memory()
    reset_peak_memory()
    assert full - peak_memory_mib() > 40
