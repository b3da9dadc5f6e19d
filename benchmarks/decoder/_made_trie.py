"""KenLM's plain tries of models that asrkern has estimated, in numpy: files of a size that build_binary is used for.

tests/decoder/kenlm_writer.py says in plain Python what the format is, and writes all its kinds; a test compares the two.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asrkern.decoder import NGramLM
from asrkern.decoder._backoff_weights import find
from tests.decoder.kenlm_writer import murmur_hash

_HEADER = b"mmap lm http://kheafield.com/code format version 5\n\0".ljust(56, b"\0")
_TRIE, _VERSION, _MULTIPLIER = 2, 1, 1.5
_LOG_PROB_BITS, _BACKOFF_BITS = 31, 32
# A multiple of 8, so that each block of records ends with a byte.
_RECORDS_PER_BLOCK = 1 << 16


def write_trie(lm: NGramLM, path: Path) -> None:
    """Write ``build_binary trie``'s file of a model that has its n-grams, all their beginnings and all their ends.

    lm: of order 2 or more, as ``NGramLM.estimate`` makes it without pruning.
    """
    listed = lm._listed("write_trie")
    words = listed.strings.split(b"\n")[:-1]
    # <unk> keeps its number; the others are in the order of their hashes.
    hashes = np.array([0, *(murmur_hash(word) for word in words[1:])], np.uint64)
    ids_by_hash = np.argsort(hashes, kind="stable")
    new_ids = np.empty(len(words), np.int64)
    new_ids[ids_by_hash] = np.arange(len(words))
    counts = [len(log_probs) for _, log_probs, _ in listed.orders]
    # Places of n-grams among those of their order: a walk through the trie from the last word to the first.
    places, sorted_words = [], []
    for ngrams, _, _ in listed.orders:
        renamed = new_ids[ngrams]
        places.append(np.lexsort(renamed.T))
        sorted_words.append(renamed[places[-1]])
    with path.open("wb") as file:
        file.write(_HEADER + struct.pack("<fffIIIQ", 0, 1, -0.5, 1, 0xFFFFFFFF, 0, 1))
        file.write(struct.pack("<BxxxfI?xxxI", lm.order, _MULTIPLIER, _TRIE, True, _VERSION))
        file.write(struct.pack(f"<{lm.order}Q", *counts))
        file.write(bytes(-file.tell() % 8) + struct.pack("<Q", len(words) - 1))
        file.write(hashes[ids_by_hash[1:]].tobytes() + bytes(8))
        for n in range(lm.order):
            _, log_probs, backoffs = (column[places[n]] for column in listed.orders[n])
            longest = n + 1 == lm.order
            nexts = None if longest else _nexts(sorted_words[n], sorted_words[n + 1])
            if nexts is not None:
                backoffs = _marked(backoffs, sorted_words[n], sorted_words[n + 1])
            if n == 0:
                assert nexts is not None
                records = np.zeros(counts[0] + 2, [("log_prob", "<f4"), ("backoff", "<f4"), ("next", "<u8")])
                records["log_prob"][:-2], records["backoff"][:-2] = log_probs, backoffs
                records["next"][:-1] = nexts
                file.write(records.tobytes())
                continue
            fields = [
                (sorted_words[n][:, 0], counts[0].bit_length()),
                (np.asarray(log_probs, "<f4").view("<u4") & 0x7FFFFFFF, _LOG_PROB_BITS),
            ]
            if nexts is not None:
                fields.append((np.asarray(backoffs, "<f4").view("<u4"), _BACKOFF_BITS))
                fields.append((nexts, counts[n + 1].bit_length()))
            for block in _pack(fields, counts[n] + 1):
                file.write(block)
            file.write(bytes(8))
        file.write(b"".join(words[i] + b"\0" for i in ids_by_hash))


def _nexts(ngrams: np.ndarray, longer: np.ndarray) -> np.ndarray:
    """Where the n-grams begin that end with each of ``ngrams``, and where those of the last one end."""
    children = np.bincount(find(longer[:, 1:], ngrams), minlength=len(ngrams))
    return np.concatenate([[0], np.cumsum(children)])


def _marked(backoffs: np.ndarray, ngrams: np.ndarray, longer: np.ndarray) -> np.ndarray:
    """Back-off weights, −0.0 of n-grams that have none and begin no longer one."""
    begins = np.zeros(len(ngrams), bool)
    begins[find(longer[:, :-1], ngrams)] = True
    return np.where(backoffs == 0, np.where(begins, np.float32(0), np.float32(-0.0)), backoffs)


def _pack(fields: list[tuple[np.ndarray, int]], count: int) -> Iterator[bytes]:
    """``count`` records of these fields, the first in the lowest bits; those that a field lacks are 0 in it."""
    for begin in range(0, count, _RECORDS_PER_BLOCK):
        columns = []
        for values, bits in fields:
            block = np.zeros(min(_RECORDS_PER_BLOCK, count - begin), "<u8")
            given = values[begin : begin + len(block)]
            block[: len(given)] = given
            columns.append(
                np.unpackbits(block.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, :bits]
            )
        yield np.packbits(np.concatenate(columns, axis=1), bitorder="little").tobytes()
