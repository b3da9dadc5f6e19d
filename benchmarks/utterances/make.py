"""Make the benchmark's utterances again: ``python benchmarks/utterances/make.py`` (needs espeak-ng on PATH).

The leading utterances, at most 20 s of them, are what ``rtf.py`` gives to its largest preset: they have to be
of mixed length.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import soundfile
import torch

from asrkern.data import load_audio

SAMPLE_RATE = 16000

# (eSpeak NG voice, words per minute, sentence)
UTTERANCES = [
    ("en-us+f3", 165, "The kettle had been singing for a minute before anyone got up."),
    ("en-gb-scotland", 140, "Good morning."),
    (
        "en-us",
        170,
        "Seven green bottles stood on the wall beside the old bakery, waiting for rain.",
    ),
    ("en-029", 145, "Who left the lantern on?"),
    ("en-gb-x-gbcwmd", 160, "Please turn left at the second bridge."),
    (
        "en-gb",
        150,
        "If the river rises again tonight, we shall move the sheep to the upper field, and leave the \
gate open.",
    ),
    (
        "en-us+m7",
        150,
        "It's cheaper to mend a roof in June than to buy a bucket in November, my grandmother used to \
say.",
    ),
    (
        "en-gb-x-rp+f4",
        155,
        "Our neighbour keeps a map of every footpath in the valley, drawn by hand on the backs of \
envelopes, and he will lend it to anyone who promises to bring it home dry.",
    ),
    (
        "en-us-nyc",
        160,
        "The committee met on Thursday, argued about the clock for most of an hour, and agreed at last \
that it should be painted blue, wound once a week, and set three minutes fast, so that nobody \
would miss the last train to the coast.",
    ),
    ("en-gb+f2", 175, "Bring two lemons, a loaf of bread, and something to read."),
]


def normalise(sentence: str) -> str:
    """Lower-case letters, apostrophes and single spaces only."""
    return " ".join(re.sub(r"[^a-z' ]", " ", sentence.lower()).split())


def synthesise(voice: str, words_per_minute: int, sentence: str) -> torch.Tensor:
    """``[samples]`` at 16 kHz, peak 0.5."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "speech.wav")
        subprocess.run(
            ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-w", wav, sentence], check=True
        )
        samples = load_audio(wav, SAMPLE_RATE)
    return 0.5 * samples / samples.abs().max()


def main() -> None:
    folder = Path(__file__).parent
    lines = []
    for i, (voice, words_per_minute, sentence) in enumerate(UTTERANCES):
        samples = synthesise(voice, words_per_minute, sentence)
        name = f"{i:02d}.ogg"
        with soundfile.SoundFile(folder / name, "w", SAMPLE_RATE, 1, "VORBIS", format="OGG") as file:
            # In blocks: libsndfile's Vorbis encoder overflows its stack on long ones.
            for block in samples.split(SAMPLE_RATE):
                file.write(block.numpy())
        entry = {
            "audio_filepath": name,
            "duration": round(len(samples) / SAMPLE_RATE, 3),
            "text": normalise(sentence),
            "voice": voice,
            "words_per_minute": words_per_minute,
        }
        lines.append(json.dumps(entry) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
