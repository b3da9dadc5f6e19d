"""A corpus that needs no download: each word is a sequence of tones, one a letter."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 8000
LETTERS = "ABCDE"


def write_tones(folder: Path, utterances: int, seed: int = 0, words: int = 2, **fields: Any) -> Path:
    """A NeMo manifest of that many utterances with recordings of 8 kHz; returns its path."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(utterances):
        text = " ".join(
            "".join(draw.choices(LETTERS, k=draw.randint(1, 3))) for _ in range(draw.randint(1, words))
        )
        samples = np.concatenate([tone(letter, draw.uniform(0.08, 0.12)) for letter in text])
        samples += np.random.default_rng(index).normal(0, 0.01, len(samples))
        soundfile.write(folder / f"u{index}.wav", samples, RATE, subtype="PCM_16")
        line = {"audio_filepath": f"u{index}.wav", "duration": len(samples) / RATE, "text": text.lower()}
        lines.append(json.dumps({**line, **fields}))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def tone(letter: str, seconds: float) -> np.ndarray:
    """A letter; a space is silence."""
    time = np.arange(round(seconds * RATE)) / RATE
    if letter == " ":
        return 0 * time
    return 0.3 * np.sin(2 * np.pi * (400 + 500 * LETTERS.index(letter)) * time) * np.hanning(len(time))


def tiny_recipe(train: Path, valid: Path, **changes: Any) -> dict[str, Any]:
    """Values of a recipe that trains in a second or two, and changes of it by dotted keys."""
    values: dict[str, Any] = {
        "name": "tiny",
        "task": "ctc",
        "metric": "cer",
        "diagnose": False,
        "model": {
            "name": "vgg_gru_ctc",
            "options": {"channels": [4], "hidden_size": 12, "num_layers": 1, "dnn_size": 16, "dropout": 0.1},
        },
        "features": {"kind": "log_mel", "bins": 12, "sample_rate": RATE},
        "data": {"train": [str(train)], "valid": [str(valid)], "batch_utterances": 5, "sorted_epochs": 1},
        "optimizer": {"lr": 3e-3},
        "trainer": {"epochs": 3, "tensorboard": False},
    }
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values.setdefault(section, {}) if section else values)[name] = value
    return values
