"""docs/corpus_picture.py: a job whose worker and command are killed has a row for each recording, and a picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_picture_of_a_small_corpus(tmp_path: Path) -> None:
    picture = tmp_path / "corpus.png"
    command = [sys.executable, str(ROOT / "docs" / "corpus_picture.py"), "--recordings", "240"]
    done = subprocess.run([*command, "--out", str(picture)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("240 rows of 240 recordings")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
