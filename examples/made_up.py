"""Speech that is made up, each letter a tone, and a model of it: the examples need no recordings and no downloads."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
LETTERS = "ABCDEFGH"
WORDS = [
    "A",
    "AGE",
    "BAD",
    "BAG",
    "BEACH",
    "BED",
    "CAB",
    "CAFE",
    "DEAF",
    "EACH",
    "EGG",
    "FACE",
    "HAD",
    "HEAD",
    "HE",
]
# Of train.py, in the folder in which the examples are started.
FOLDER = Path("build/examples")
CHECKPOINT = FOLDER / "model/best.safetensors"


def sentence(words: int, seed: int) -> str:
    """So many words."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def tones(text: str, seed: int) -> list[np.ndarray]:
    """The sound of each letter, of 0.1 to 0.14 s; spaces are silence."""
    draw = np.random.default_rng(seed)
    return [_tone(letter, draw.uniform(0.1, 0.14)) for letter in text]


def speak(text: str, seed: int = 0) -> np.ndarray:
    """A text as float32 samples at RATE, with a little noise and 0.1 s of pause at both ends."""
    pause = np.zeros(RATE // 10)
    samples = np.concatenate([pause, *tones(text, seed), pause])
    return (samples + np.random.default_rng(seed).normal(0, 0.01, len(samples))).astype(np.float32)


def _tone(letter: str, seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    if letter == " ":
        return 0 * time
    return 0.3 * np.sin(2 * np.pi * (400 + 400 * LETTERS.index(letter)) * time) * np.hanning(len(time))


def write_folder(folder: Path, recordings: int) -> None:
    """A folder as people have them: 0.wav beside 0.txt, and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(recordings):
        text = sentence(index % 3 + 1, seed=index)
        soundfile.write(folder / f"{index}.wav", speak(text, index), RATE)
        (folder / f"{index}.txt").write_text(text, encoding="utf-8")


def checkpoint() -> Path:
    """The model that train.py makes; made now if it is not there."""
    if not CHECKPOINT.exists():
        print(f"{CHECKPOINT} is not there: train.py makes it", flush=True)
        subprocess.run([sys.executable, Path(__file__).with_name("train.py")], check=True)
    return CHECKPOINT
