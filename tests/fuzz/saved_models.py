"""Files of NGramLM.save, plain and quantised: damaged as they are, or with a checksum of the damage."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from asrkern.decoder import NGramLM, _saved_lm
from tests.fuzz._language_models import NUMBERS, TEXTS, assert_scores_are_sane, damage, sentences

REFUSALS = (ValueError,)


class Seed(NamedTuple):
    content: bytes
    header: dict[str, Any]
    data: bytes
    texts: list[str]
    scores: list[float]


def prepare(folder: Path) -> list[Seed]:
    seeds, path, texts = [], folder / "seed.safetensors", sentences(np.random.default_rng(0))
    for order in (1, 2, 4):
        estimated = NGramLM.estimate(TEXTS, order, discount_fallback=True)
        for lm in (estimated, estimated.quantize()) if order > 1 else (estimated,):
            lm.save(path)
            content = path.read_bytes()
            end = 8 + int.from_bytes(content[:8], "little")
            header = json.loads(content[8:end])
            seeds.append(Seed(content, header, content[end:], texts, lm.score_batch(texts).tolist()))
    return seeds


def _with_checksum(rng: np.random.Generator, seed: Seed, other: Seed) -> bytes:
    """Damaged tables and metadata of which a checksum is made anew, in a file of any alignment."""
    header, size = json.loads(json.dumps(seed.header)), len(seed.data)
    data = damage(rng, seed.data, other.data, text=False).ljust(size, b"\0")[:size]
    metadata = header["__metadata__"]
    if rng.random() < 0.3:
        name = rng.choice(["order", "bos", "eos", "unit", "space", "format"])
        metadata[name] = NUMBERS[rng.integers(len(NUMBERS))].decode()
    if rng.random() < 0.2:
        metadata["format"] = "asrkern n-gram model 3"
    tensors = {}
    for name, (_, dtype) in _saved_lm.DTYPES.items():
        if name in header:
            begin, end = header[name]["data_offsets"]
            numpy_dtype = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}[dtype]
            array = np.frombuffer(bytearray(data[begin:end]), numpy_dtype)
            tensors[name] = torch.from_numpy(array.reshape(header[name]["shape"]))
    metadata["checksum"] = _saved_lm.checksum(tensors, metadata)
    text = json.dumps(header).encode()
    text += b" " * int(rng.integers(9))
    return struct.pack("<Q", len(text)) + text + data


def one(rng: np.random.Generator, folder: Path, prepared: list[Seed]) -> None:
    seed, other = (prepared[i] for i in rng.integers(len(prepared), size=2))
    kind = rng.random()
    if kind < 0.05:
        content = seed.content
    elif kind < 0.6:
        content = damage(rng, seed.content, other.content, text=rng.random() < 0.3)
    else:
        content = _with_checksum(rng, seed, other)
    path = folder / "model.safetensors"
    path.write_bytes(content)
    lm = NGramLM.load(path)
    if kind < 0.6:
        assert lm.score_batch(seed.texts).tolist() == seed.scores
    assert_scores_are_sane(lm, sentences(rng))
