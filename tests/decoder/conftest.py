from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def oracles(data_dir):
    """Published outputs with published answers, by the names of their files; arrays under "<name> arrays"."""
    folder = data_dir / "decoder_oracles"
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    found |= {f"{path.stem} arrays": np.load(path) for path in folder.glob("*.npz")}
    return found
