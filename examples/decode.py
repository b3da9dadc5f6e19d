"""Decode what a model such as wav2vec 2.0 writes: alone, with a language model, and with hotwords.

python examples/decode.py [LOGITS.npy VOCAB.json LM.arpa] [--hotwords WORD ...]

LOGITS.npy has the shape [frames, labels]; VOCAB.json is the model's. Without files, logits are made up in which some
letters sound like others.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from asrkern.decoder import CTCBeamDecoder, NGramLM, read_labels

# As in wav2vec 2.0's vocab.json: the blank is <pad>, the space is |.
LABELS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
TEXTS = ["CALL HER AT NINE", "CALL ME AT NOON", "HE CAME AT NINE", "A NOOK AT HOME"]
SAID, SOUNDS = "CALL ANOUK AT NINE", "KALL A NOOK AD NINE"


def make_logits() -> np.ndarray:
    """[frames, labels]: each letter of SOUNDS is likely, and the one of SAID at its place, if another, a little less so."""
    said = "CALL A\0NOUK AT NINE"  # \0: the blank, where SOUNDS has a space
    logits = np.random.default_rng(0).normal(0, 0.3, (2 * len(SOUNDS), len(LABELS))).astype(np.float32)
    for place, (sound, letter) in enumerate(zip(SOUNDS, said, strict=True)):
        logits[2 * place, index(sound)] += 9
        logits[2 * place, index(letter)] += 8.5 if letter != sound else 0
        logits[2 * place + 1, 0] += 9
    return logits


def index(letter: str) -> int:
    return LABELS.index({" ": "|", "\0": "<pad>"}.get(letter, letter))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="LOGITS.npy VOCAB.json LM.arpa")
    parser.add_argument("--hotwords", nargs="+", default=["ANOUK"])
    options = parser.parse_args()
    if len(options.files) not in (0, 3):
        parser.error(f"expected three files or none, received {len(options.files)}")
    if options.files:
        logits, labels = np.load(options.files[0]), read_labels(options.files[1])
        lm = NGramLM.open(options.files[2])
    else:
        # discount_fallback: so small a text does not say how much to discount.
        logits, labels, lm = make_logits(), LABELS, NGramLM.estimate(TEXTS, 3, discount_fallback=True)
    log_probs = torch.from_numpy(logits).float().log_softmax(-1)

    decoder = CTCBeamDecoder(labels, lm, alpha=0.5, beta=1.5, beam_width=100, hotword_weight=15)
    print(f"alone: {CTCBeamDecoder(labels).decode(log_probs)[0].text}")
    print(f"language model: {decoder.decode(log_probs)[0].text}")
    best = decoder.decode(log_probs, hotwords=options.hotwords)[0]
    print(f"with hotwords: {best.text}")
    for word in best.words:
        print(f"  frames {word.start:3d} to {word.end:3d}: {word.text}, confidence {word.confidence:.2f}")


if __name__ == "__main__":
    main()
