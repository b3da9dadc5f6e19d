"""Saved states of beam searches: valid ones with numbers, bits, lengths and parts changed and the checksum made again."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from asrkern.decoder import CTCBeamDecoder
from tests.decoder.models import random_log_probs, small_lm
from tests.decoder.states import with_checksum

REFUSALS = (ValueError,)

LETTERS = ["-", " ", "a", "b", "c"]
WORDS = ["ab", "a", "b", "abc", "cab", "ba"]
EXTREMES = (
    0,
    1,
    -1,
    2**31 - 1,
    -(2**31),
    0x7F800000,
    -0x800000,
    0x7FC00000,
    0x7149F2CA,
    -0xEB60D36,
    0x501502F9,
)
HEAD_BYTES = 64


class Seed(NamedTuple):
    """A decoder, the bytes of one of its states without the checksum, frames to go on with, and what then is found."""

    decoder: CTCBeamDecoder
    data: bytes
    log_probs: torch.Tensor
    found: list


def prepare(folder: Path) -> list[Seed]:
    """States of several decoders after 0 to 120 frames."""
    torch.manual_seed(0)
    lm = small_lm(WORDS)
    kinds = [
        {},
        {"lm": lm, "hotwords": {"ba ab": 2.0, "ac": -1.0}, "unk_score": -2.0},
        {"lm": lm, "lexicon": WORDS},
        {"lexicon": {"Ab": [["a", "b"]], "AB": [["a", "b"], ["c"]]}, "beam_prune_logp": -9.0},
        {"lm": small_lm(["ab", "b a"], unit="character"), "log_add": False},
        # With a word that no labels spell.
        {"lm": small_lm([*WORDS, "axb"]), "unk_score": -3.0},
    ]
    seeds = []
    for options in kinds:
        decoder = CTCBeamDecoder(LETTERS, beam_width=5, nbest=3, history=15, **options)
        for frames in (0, 1, 7, 30, 120):
            state, log_probs = decoder.start(), random_log_probs(20, 5)
            decoder.step(state, random_log_probs(frames, 5, sharpness=3.0))
            if frames % 2:
                decoder.partial(state)
            data = state.__getstate__()[:-8]
            decoder.step(state, log_probs)
            seeds.append(Seed(decoder, data, log_probs, decoder.finish(state)))
    return seeds


def mutated(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Other bytes, mostly with one to three numbers changed."""
    changed = bytearray(data)
    kind = rng.integers(20)
    if kind == 0:
        return bytes(changed[: rng.integers(len(changed))])
    if kind == 1:
        return bytes(changed) + rng.bytes(int(rng.integers(1, 60)))
    if kind == 2:
        at = int(rng.integers(min(len(data), len(other)))) // 4 * 4
        return data[:at] + other[at:]
    if kind == 3:
        return rng.bytes(int(rng.integers(200)))
    for _ in range(rng.integers(1, 4)):
        at = 4 * int(rng.integers((HEAD_BYTES if rng.random() < 0.3 else len(changed)) // 4))
        (value,) = struct.unpack_from("<i", changed, at)
        change = rng.integers(4)
        if change == 0:
            value = int(rng.choice(EXTREMES))
        elif change == 1:
            value ^= 1 << int(rng.integers(31))
        elif change == 2:
            value += int(rng.integers(-3, 4))
        else:
            value = int(rng.integers(20))
        struct.pack_into("<I", changed, at, value & 0xFFFFFFFF)
    return bytes(changed)


def one(rng: np.random.Generator, folder: Path, prepared: list[Seed]) -> None:
    """Load one, and go on with it."""
    seed, other = (prepared[int(i)] for i in rng.integers(len(prepared), size=2))
    valid = rng.random() < 0.05
    data = seed.data if valid else mutated(rng, seed.data, other.data)
    made = type(seed.decoder.start())
    state = made.__new__(made)
    state.__setstate__(with_checksum(data))
    decoder = seed.decoder
    decoder.partial(state)
    at = int(rng.integers(len(seed.log_probs)))
    decoder.step(state, seed.log_probs[:at])
    told = decoder.partial(state).words
    decoder.step(state, seed.log_probs[at:])
    found = decoder.finish(state)
    assert len({h.text for h in found}) == len(found) > 0
    assert all(math.isfinite(h.score) and h.words[: len(told)] == told for h in found)
    assert not valid or found == seed.found
    again = made.__new__(made)
    again.__setstate__(state.__getstate__())
    assert decoder.finish(again) == found
