"""docs/decoder.md's examples run, in its order, in an empty folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from asrkern.decoder.compat import _install

TEXT = (Path(__file__).parents[2] / "docs" / "decoder.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
ORIGINS = re.findall(r"^## From (\w+)", TEXT, re.MULTILINE)


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ORIGINS == ["pyctcdecode", "transformers", "torchaudio", "sherpa"] and len(EXAMPLES) == 7
    monkeypatch.chdir(tmp_path)
    # The alias of pyctcdecode goes again.
    aliased = [name for name in sys.modules if name.partition(".")[0] in ("pyctcdecode", "kenlm")]
    before = {name: sys.modules.pop(name) for name in aliased}
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    found: dict[str, object] = {}
    try:
        for example in EXAMPLES:
            exec(example, found)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("pyctcdecode", "kenlm")]:
            del sys.modules[name]
        sys.modules.update(before)
        _install._finder.names.clear()
        _install._tell_transformers()
