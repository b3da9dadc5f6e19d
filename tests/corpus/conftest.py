"""A corpus, and what its recordings say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asrkern.data import load_audio, read_manifest
from asrkern.recognizer.transcript_forms import content
from tests.corpus.workers import make_corpus, open_transcriber
from tests.training.tones import RATE


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 70)


@pytest.fixture(scope="module")
def expected(corpus: tuple[Path, Path]) -> list[dict[str, Any]]:
    """What the recordings say, each for itself."""
    manifest, checkpoint = corpus
    transcriber, rows = open_transcriber(checkpoint), []
    for entry, utterance in enumerate(read_manifest(manifest)):
        samples = load_audio(utterance.audio_path, RATE)
        row = {"entry": entry, "offset": 0.0, "file": str(utterance.audio_path)}
        said = json.loads(json.dumps(content(transcriber.recording(samples))))
        rows.append({**row, "seconds": round(len(samples) / RATE, 3), **said})
    return rows
