"""Weights in fewer bits: what a model then takes of memory and time, and what it hears.

python examples/quantize.py [CHECKPOINT MANIFEST]

MANIFEST has a line for each recording, as asrkern train reads them. Without files the model is that of train.py, and speech
is made up. Needs pip install 'asrkern[recognizer]'.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import made_up
import torch
from torch import Tensor, nn

import asrkern
from asrkern.data import load_audio, read_manifest
from asrkern.recognizer import Recognizer

FORMATS = {
    "float32": None,
    "bf16": {"weights": "bf16"},
    "int8": {"weights": "int8"},
    "int8, int8 activations": {"weights": "int8", "activations": "int8"},
}


def size_mib(model: nn.Module) -> float:
    """Of its parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) / 2**20


def listen(recognizer: Recognizer, recordings: list[Tensor]) -> tuple[list[str], float]:
    """What is heard, one recording after another, and the seconds that it takes."""
    recognizer.predict_audio(recordings[:1])  # packs the weights
    start = time.perf_counter()
    texts = [recognizer.predict_audio([samples])[0] for samples in recordings]
    return texts, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("manifest", nargs="?")
    options = parser.parse_args()
    recognizer = asrkern.load(options.checkpoint or made_up.checkpoint())
    if options.manifest:
        rate = recognizer.features.sample_rate
        utterances = read_manifest(options.manifest)
        said = [recognizer.text(utterance.text) for utterance in utterances]
        recordings = [
            load_audio(
                u.audio_path, rate, offset_seconds=u.offset_seconds, duration_seconds=u.duration_seconds
            )
            for u in utterances
        ]
    else:
        said = [made_up.sentence(3, seed) for seed in range(1000, 1010)]
        recordings = [torch.from_numpy(made_up.speak(text, seed)) for seed, text in enumerate(said)]

    print(f"{len(said)} recordings\n{'weights':24} {'MiB':>6} {'s':>6}  right  as float32")
    reference: list[str] = []
    for name, bits in FORMATS.items():
        model = asrkern.nn.quantize(recognizer.model, **bits) if bits else recognizer.model
        texts, seconds = listen(replace(recognizer, model=model), recordings)
        reference = reference or texts
        right, same = (sum(map(str.__eq__, texts, others)) for others in (said, reference))
        print(f"{name:24} {size_mib(model):6.2f} {seconds:6.2f}  {right:5d}  {same:10d}")


if __name__ == "__main__":
    main()
