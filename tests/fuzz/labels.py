"""Label files of every kind, whole and damaged, and decoders of what was read from them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from asrkern.decoder import CTCBeamDecoder, read_labels

REFUSALS = (ValueError,)

_LABELS = (
    "<blk>", "<blank>", "", "<pad>", "[PAD]", "<unk>", "<s>", "</s>", "<sos/eos>", "<space>", "|", " ", "▁", "▁the", "▁a",
    "##s", "##", "_", "-", "#0", "#1", "a", "b", "s", "é", "7", "0", "\x85", "\xa0", "\u3000", "\U0001f600", "ß", "{", "}",
)  # fmt: skip
_NUMBERS = ("0", "-0", "-1", "1", "1.5", "1e5", "-1e-5", "4611686018427387904", "9" * 5000, "nan", "٣", "")


def one(rng: np.random.Generator, folder: Path, prepared: object = None) -> None:
    labels = [_LABELS[i] for i in rng.integers(len(_LABELS), size=rng.integers(1, 12))]
    name, text = _written(rng, labels)
    content = text.encode()
    whole = rng.random() < 0.4
    if not whole:
        content = _damaged(rng, content)
    path = folder / name
    path.write_bytes(content)
    found = read_labels(path)
    assert found and all(isinstance(label, str) for label in found)
    if whole and name == "vocab.json":
        assert found == list(dict.fromkeys(labels))
    _decode(rng, found)


def _written(rng: np.random.Generator, labels: list[str]) -> tuple[str, str]:
    gap = ("\t", " ", "  ")[rng.integers(3)]
    numbered = [f"{label}{gap}{index}" for index, label in enumerate(labels)]
    rng.shuffle(numbered)
    kinds = {
        "labels.txt": "\n".join(labels),
        "tokens.txt": "\n".join(numbered),
        "dict.txt": "\n".join(f"{label} {len(labels) - i}" for i, label in enumerate(labels)),
        "m.vocab": "\n".join(f"{label}\t{-i}" for i, label in enumerate(labels)),
        "table.txt": "\n".join(["id,char,freq", *(f'{i},"{label}",1' for i, label in enumerate(labels))]),
        "labels.json": json.dumps(labels),
        "alphabet.json": json.dumps({"labels": labels, "is_bpe": True}),
        "vocab.json": json.dumps({label: i for i, label in enumerate(dict.fromkeys(labels))}, ensure_ascii=False),
    }  # fmt: skip
    name = list(kinds)[rng.integers(len(kinds))]
    return name, kinds[name]


def _damaged(rng: np.random.Generator, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at, fault = int(rng.integers(len(data) + 1)), rng.integers(5)
        end = min(len(data), at + int(rng.integers(1, 9)))
        if fault == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif fault == 1:
            del data[at:end]
        elif fault == 2:
            data[at:at] = data[at:end] or b"\r\n"
        elif fault == 3:
            data[at:end] = _NUMBERS[rng.integers(len(_NUMBERS))].encode()
        else:
            data[at:at] = _LABELS[rng.integers(len(_LABELS))].encode()
    return bytes(data)


def _decode(rng: np.random.Generator, labels: list[str]) -> None:
    options = {
        "blank": [0, 0, None, len(labels) - 1, len(labels)][rng.integers(5)],
        "space": [None, None, "", labels[-1]][rng.integers(4)],
        "lexicon": [None, None, None, labels[1:], ["a", "sa"], {"w": [labels[1:2]]}][rng.integers(6)],
        "hotwords": [None, None, [labels[-1]], ["a s"]][rng.integers(4)],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder = CTCBeamDecoder(
            labels, beam_width=4, nbest=2, check_normalized=False, num_threads=1, **options
        )
    for best in decoder.decode(rng.normal(size=(4, len(labels)))):
        assert all(0 <= token < len(labels) for token in best.tokens) and "\0" not in best.text
