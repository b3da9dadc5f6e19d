"""Writes KenLM's binary files of type probing: what the format's description says, in Python."""

from __future__ import annotations

import math
import struct

import numpy as np

from asrkern.reference import ngram as reference


def murmur_hash(data: bytes) -> int:
    """MurmurHash64A, seed 0."""
    m, mask = 0xC6A4A7935BD1E995, 2**64 - 1
    value = len(data) * m & mask
    whole = len(data) // 8 * 8
    for i in range(0, whole, 8):
        k = int.from_bytes(data[i : i + 8], "little") * m & mask
        value = (value ^ (k ^ k >> 47) * m & mask) * m & mask
    if data[whole:]:
        value = (value ^ int.from_bytes(data[whole:], "little")) * m & mask
    value = (value ^ value >> 47) * m & mask
    return value ^ value >> 47


def hash_table(entries: dict[int, bytes], count: int, multiplier: float, width: int) -> bytes:
    """Slots (key, value of ``width`` bytes), as many as ``count`` entries get."""
    buckets = max(count + 1, int(np.float32(multiplier) * np.float32(count)))
    table = [bytes(8 + width)] * buckets
    for key, value in entries.items():
        at = key % buckets
        while any(table[at]):
            at = (at + 1) % buckets
        table[at] = struct.pack("<Q", key) + value
    return b"".join(table)


def kenlm_binary(
    model: reference.Model, *, kind: int = 0, strings: bool = True, multiplier: float = 1.5, version: int = 5
) -> bytes:
    """What ``build_binary probing`` makes of a model in which no beginning and no end of an n-gram is missing."""
    order = max(map(len, model))
    words = ["<unk>", *(ngram[0] for ngram in model if len(ngram) == 1 and ngram != ("<unk>",))]
    ids = {word: i for i, word in enumerate(words)}
    counts = [sum(len(ngram) == n for ngram in model) for n in range(1, order + 1)]
    contexts, ends = {ngram[:-1] for ngram in model}, {ngram[1:] for ngram in model}

    def value(ngram: tuple[str, ...]) -> bytes:
        log_prob, backoff = model.get(ngram, (-100, 0))
        log_prob = math.copysign(log_prob, 1 if ngram in ends else -1)
        if backoff == 0:
            backoff = 0.0 if ngram in contexts else -0.0
        return struct.pack("<ff", log_prob, backoff)[: 4 if len(ngram) == order else 8]

    def key(ngram: tuple[str, ...]) -> int:
        result = ids[ngram[-1]]
        for word in ngram[-2::-1]:
            result = (result * 8978948897894561157 ^ (1 + ids[word]) * 17894857484156487943) % 2**64
        return result

    header = (b"mmap lm http://kheafield.com/code format version %d\n\0" % version).ljust(56, b"\0")
    header += struct.pack("<fffIIIQ", 0, 1, -0.5, 1, 0xFFFFFFFF, 0, 1)
    header += struct.pack("<BxxxfI?xxxI", order, multiplier, kind, strings, int(kind > 1))
    header += struct.pack(f"<{order}Q", *counts)
    parts = [header, bytes(-len(header) % 8), struct.pack("<II", 0, len(words))]
    known = {murmur_hash(word.encode()): struct.pack("<I", i) for word, i in ids.items() if i}
    parts.append(hash_table(known, counts[0], multiplier, 4))
    parts += [value((word,)) for word in words]
    parts.append(bytes(8 * (counts[0] + 1 - len(words))))
    for n in range(2, order + 1):
        entries = {key(ngram): value(ngram) for ngram in model if len(ngram) == n}
        parts.append(hash_table(entries, counts[n - 1], multiplier, 4 if n == order else 8))
    if strings:
        parts += [word.encode() + b"\0" for word in words]
    return b"".join(parts)


SMALL = reference.kneser_ney(
    [["the", "cat", "sat"], ["the", "extraordinarily", "fat", "cat"], ["a", "cat"]],
    3,
    (0, 0, 0),
    (0.5, 1, 1.5),
)
