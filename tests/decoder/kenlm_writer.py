"""Writes KenLM's binary files, probing and tries: what the format's description says, in Python.

All is for models in which no beginning and no end of an n-gram is missing, as ``build_binary`` makes them.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import NamedTuple

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


class Quantised(NamedTuple):
    """What ``build_binary -q -b`` makes of values: bits of codes, and the values of codes for each order from 2 on."""

    bits: tuple[int, int]
    log_probs: list[np.ndarray]
    backoffs: list[np.ndarray]


def quantise(model: reference.Model, bits: tuple[int, int]) -> Quantised:
    """Codes of evenly spaced values among those that occur. Codes 0 and 1 of back-off weights are for 0."""

    def spread(values: set[float], count: int) -> np.ndarray:
        values = sorted(values) or [-1.0]
        return np.array([values[i * len(values) // count] for i in range(count)], np.float32)

    orders = range(2, max(map(len, model)) + 1)
    log_probs = [spread({model[n][0] for n in model if len(n) == order}, 2 ** bits[0]) for order in orders]
    backoffs = [
        np.concatenate(
            [np.array([-0.0, 0.0], np.float32),
             spread({model[n][1] for n in model if len(n) == order and model[n][1]}, 2 ** bits[1] - 2)]
        )
        for order in orders[:-1]
    ]  # fmt: skip
    return Quantised(bits, log_probs, backoffs)


def quantised_model(model: reference.Model, codes: Quantised) -> reference.Model:
    """The model that remains of the codes."""
    result = {}
    for ngram, (log_prob, backoff) in model.items():
        if len(ngram) > 1:
            log_prob = codes.log_probs[len(ngram) - 2][_nearest(codes.log_probs[len(ngram) - 2], log_prob)]
            if backoff and len(ngram) - 2 < len(codes.backoffs):
                backoff = codes.backoffs[len(ngram) - 2][_nearest(codes.backoffs[len(ngram) - 2], backoff, 2)]
        result[ngram] = (float(log_prob), float(backoff))
    return result


def _nearest(book: np.ndarray, value: float, first: int = 0) -> int:
    return first + int(np.abs(book[first:] - np.float32(value)).argmin())


def _float_bits(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]


def _pack(records: list[int], bits: int) -> bytes:
    """The records one after the other, ``bits`` of each from the lowest on, and 8 bytes."""
    digits = "".join(format(record, f"0{bits}b")[::-1] for record in records)
    return np.packbits(
        np.array([*digits.encode()], np.uint8) - ord("0"), bitorder="little"
    ).tobytes() + bytes(8)


def left_out_bits(records: int, greatest: int, limit: int) -> int:
    """How many upper bits of pointers stand in an array of offsets: those with which all takes the fewest bits."""
    width = greatest.bit_length()
    return min(
        range(min(width, limit) + 1), key=lambda bits: (greatest >> width - bits) * 64 - records * bits
    )


def trie_binary(
    model: reference.Model,
    *,
    strings: bool = True,
    codes: Quantised | None = None,
    pointer_limit: int | None = None,
) -> bytes:
    """What ``build_binary trie`` makes of a model, with ``-q`` and ``-b`` if there are codes, ``-a pointer_limit``."""
    order = max(map(len, model))
    words = sorted(
        {n[0] for n in model if len(n) == 1} - {"<unk>"}, key=lambda word: murmur_hash(word.encode())
    )
    words = ["<unk>", *words]
    ids = {word: i for i, word in enumerate(words)}
    # From the last word to the first, in the order of a walk through the trie.
    levels = [
        sorted((tuple(ids[word] for word in n[::-1]), n) for n in model if len(n) == length)
        for length in range(1, order + 1)
    ]
    if ("<unk>",) not in model:
        levels[0].insert(0, ((0,), ("<unk>",)))
    counts = [len(level) for level in levels]
    contexts = {n[:-1] for n in model}

    def nexts(level: int) -> list[int]:
        """Where the children of each n-gram begin, and where those of the last one end."""
        children = Counter(path[:-1] for path, _ in levels[level + 1])
        return [0, *accumulate(children[path] for path, _ in levels[level])]

    def backoff_of(n: tuple[str, ...]) -> float:
        backoff = model.get(n, (-100, 0))[1]
        return backoff or (0.0 if n in contexts else -0.0)

    header = (b"mmap lm http://kheafield.com/code format version 5\n\0").ljust(56, b"\0")
    header += struct.pack("<fffIIIQ", 0, 1, -0.5, 1, 0xFFFFFFFF, 0, 1)
    kind = 2 + (codes is not None) + 2 * (pointer_limit is not None)
    header += struct.pack("<BxxxfI?xxxI", order, 1.5, kind, strings, 1)
    header += struct.pack(f"<{order}Q", *counts)
    body = [header, bytes(-len(header) % 8), struct.pack("<Q", len(words) - 1)]
    body += [struct.pack("<Q", murmur_hash(word.encode())) for word in words[1:]] + [bytes(8)]
    if codes:
        body.append(bytes([2, *codes.bits]) + bytes(5))
        for length in range(2, order + 1):
            body.append(codes.log_probs[length - 2].tobytes())
            if length < order:
                body.append(codes.backoffs[length - 2].tobytes())
    for (_, n), begin in zip(levels[0], nexts(0)):
        body.append(struct.pack("<ffQ", model.get(n, (-100, 0))[0], backoff_of(n), begin))
    body.append(struct.pack("<ffQ", 0, 0, counts[1]) + bytes(16))
    word_bits = counts[0].bit_length()
    for level in range(1, order):
        longest = level == order - 1
        begins = [0] * (counts[level] + 1) if longest else nexts(level)
        next_bits = 0 if longest else counts[level + 1].bit_length()
        if pointer_limit is not None and not longest:
            next_bits -= left_out_bits(counts[level] + 1, counts[level + 1], pointer_limit)
            upper = [begin >> next_bits for begin in begins]
            offsets = [bisect_left(upper, value) for value in range((counts[level + 1] >> next_bits) + 1)]
            padding = -sum(map(len, body)) % 8
            array = bytes([0, pointer_limit]).ljust(padding + 8, b"\0")
            array += struct.pack(f"<{len(offsets)}Q", *offsets)
            body.append(array.ljust(8 * (1 + len(offsets)) + 7, b"\0"))
        records, log_bits, backoff_bits = [], *(codes.bits if codes else (31, 32))
        backoff_bits *= not longest
        for (path, n), begin in zip([*levels[level], ((0,), ())], begins, strict=True):
            log_prob, backoff = model[n][0] if n else -0.0, backoff_of(n) if n else 0.0
            if codes:
                book = codes.log_probs[level - 1]
                value = (_nearest(book, log_prob) if n else 0) << backoff_bits
                if not longest and n:
                    zero = int(not math.copysign(1, backoff) < 0)
                    value |= _nearest(codes.backoffs[level - 1], backoff, 2) if backoff else zero
            else:
                value = _float_bits(log_prob) & 0x7FFFFFFF
                value |= 0 if longest else _float_bits(backoff) << 31
            record = path[-1] | value << word_bits
            record |= (begin & (1 << next_bits) - 1) << word_bits + log_bits + backoff_bits
            records.append(record)
        body.append(_pack(records, word_bits + log_bits + backoff_bits + next_bits))
    if strings:
        body += [word.encode() + b"\0" for word in words]
    return b"".join(body)


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
    """What ``build_binary probing`` makes of a model; with kind 1, rest costs, ``build_binary -r``."""
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
        rest = struct.pack("<f", -0.125)[: 4 * kind] if len(ngram) < order else b""
        return struct.pack("<ff", log_prob, backoff)[: 4 if len(ngram) == order else 8] + rest

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
    width = 12 if kind else 8
    parts.append(bytes(width * (counts[0] + 1 - len(words))))
    for n in range(2, order + 1):
        entries = {key(ngram): value(ngram) for ngram in model if len(ngram) == n}
        parts.append(hash_table(entries, counts[n - 1], multiplier, 4 if n == order else width))
    if strings:
        parts += [word.encode() + b"\0" for word in words]
    return b"".join(parts)


SMALL = reference.kneser_ney(
    [["the", "cat", "sat"], ["the", "extraordinarily", "fat", "cat"], ["a", "cat"]],
    3,
    (0, 0, 0),
    (0.5, 1, 1.5),
)
