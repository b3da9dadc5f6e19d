"""Corpora of tones, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.tones import write_tones


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Manifests of 23 and of 7 utterances."""
    folder = tmp_path_factory.mktemp("tones")
    return write_tones(folder / "train", 23), write_tones(folder / "valid", 7, seed=1)
