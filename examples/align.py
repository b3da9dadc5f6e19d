"""When each word of a known text is spoken in a recording.

python examples/align.py [CHECKPOINT AUDIO TEXT]

TEXT is a file. Without files the model is that of train.py, and speech is made up. Needs pip install 'asrkern[recognizer]'.
asrkern align writes the same as TextGrid, CTM, SRT, WebVTT, JSON or TSV.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import made_up
import torch

import asrkern
from asrkern.data import load_audio
from asrkern.recognizer import align


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="CHECKPOINT AUDIO TEXT")
    options = parser.parse_args()
    if len(options.files) not in (0, 3):
        parser.error(f"expected three files or none, received {len(options.files)}")
    checkpoint, audio, text = options.files or (made_up.checkpoint(), None, None)
    recognizer = asrkern.load(checkpoint)
    if audio:
        samples, words = load_audio(audio, recognizer.features.sample_rate), Path(text).read_text("utf-8")
    else:
        words = made_up.sentence(6, seed=1000)
        samples = torch.from_numpy(made_up.speak(words, 1000))

    for word in align(recognizer, samples, words).words:
        print(f"{word.start_seconds:6.2f} {word.end_seconds:6.2f}  {word.text}  {word.confidence:.2f}")


if __name__ == "__main__":
    main()
