"""KenLM's binary files (Heafield 2011), version 5: probing, probing with rest costs, and the four kinds of tries.

The parts: a header; the vocabulary; the n-grams; and, unless left out, the words. In ``probing``, the vocabulary is a
hash table from a word's MurmurHash64A to its id, and unigrams and a hash table for each higher order follow. Keys of
n-grams and marks in the signs of values are those of ``kernels/lm/ngram.h``; only their places in the tables differ.
``kernels/lm/kenlm_trie.h`` reads tries. All become the tables of ``NGramLM``, and the file is not needed afterwards; but
tries can be asked where they lie, mapped into memory (``kernels/lm/ngram_trie.h``).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from asrkern import _decoder
from asrkern.decoder._scorer_package import MAGIC as PACKAGE_MAGIC

MAGIC_ANY = b"mmap lm http://kheafield.com/code"
_MAGIC = MAGIC_ANY + b" format version 5\n\0\0"
_UNFINISHED = MAGIC_ANY + b" incomplete\n"
_TYPES = (
    "probing",
    "probing with rest costs",
    "trie",
    "quantised trie",
    "trie with compressed pointers",
    "quantised trie with compressed pointers",
)
_REST_PROBING, _TRIE, _QUANTISED, _COMPRESSED = 1, 2, (3, 5), (4, 5)
# Values that show the byte order and the sizes of types: 0, 1, −0.5 as float, 1 and −1 as 32 bits, padding, 1 as 64.
_SANITY = _MAGIC.ljust(56, b"\0") + struct.pack("<3f3IQ", 0, 1, -0.5, 1, 2**32 - 1, 0, 1)
# The same from a 32-bit machine, before 2012: without padding.
_SANITY_32 = _MAGIC.ljust(56, b"\0") + struct.pack("<3f2IQ", 0, 1, -0.5, 1, 2**32 - 1, 1)
# order, space multiplier of the hash tables, type, whether the words are at the end, version of the type
_PARAMETERS = struct.Struct("<B3xfI?3xI")

_WORD = np.dtype([("key", "<u8"), ("id", "<u4")])
_MIDDLE = np.dtype([("key", "<u8"), ("payload", "<u8")])
_MIDDLE_REST = np.dtype([("key", "<u8"), ("payload", "<u8"), ("rest", "<f4")])
_LONGEST = np.dtype([("key", "<u8"), ("log_prob", "<f4")])
_LOG_ZERO = 99
WORDS_MISSING = "hashes only"
_FIRST_WORD = b"<unk>\0"
_STRINGS_AT_ONCE = 1 << 20
# Tries in larger files are mapped unless it is said otherwise: converted, they would take three to six times as much.
MAPPED_BYTES = 1 << 30
_WAY_OUT = "make it anew with KenLM's build_binary, or read the ARPA file with NGramLM.from_arpa"


class _Parts:
    """Hands out a file's arrays one after the other, without copying."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.bytes = np.memmap(path, np.uint8, mode="r") if os.path.getsize(path) else np.zeros(0, np.uint8)
        self.at = 0

    def take(self, dtype: np.dtype | str, count: int) -> np.ndarray:
        dtype = np.dtype(dtype)
        end = self.at + count * dtype.itemsize
        if end > len(self.bytes):
            raise ValueError(
                f"expected at least {end} bytes, received {len(self.bytes)}: the file is cut short"
            )
        array = self.bytes[self.at : end].view(dtype)
        self.at = end
        return array


def _header(parts: _Parts) -> tuple[int, float, int, bool]:
    """(order, multiplier, type, whether the words are there)"""
    beginning = bytes(parts.bytes[: len(_SANITY)])
    if not beginning.startswith(MAGIC_ANY):
        raise ValueError("expected a binary file of KenLM, received something else")
    if beginning.startswith(_UNFINISHED):
        raise ValueError(f"expected a whole file, received one that KenLM did not finish: {_WAY_OUT}")
    if beginning != _SANITY:
        received = beginning[len(MAGIC_ANY) : 56].strip(bytes([0, 10, 32])).decode(errors="replace")
        machine = " from a 32-bit machine" if beginning.startswith(_SANITY_32) else ""
        raise ValueError(
            "expected format version 5 from a 64-bit little-endian machine, received "
            f"{received!r}{machine}: {_WAY_OUT}"
        )
    parts.take("u1", len(_SANITY))
    order, multiplier, kind, has_words, version = _PARAMETERS.unpack(
        bytes(parts.take("u1", _PARAMETERS.size))
    )
    if kind >= len(_TYPES):
        raise ValueError(f"expected a type up to {len(_TYPES) - 1}, received {kind}: {_WAY_OUT}")
    expected = int(kind >= _TRIE)
    if version != expected:
        raise ValueError(
            f"expected version {expected} of the type {_TYPES[kind]!r}, received version {version}: {_WAY_OUT}"
        )
    if not 2 <= order <= _decoder.MAX_ORDER:
        raise ValueError(f"expected order 2 to {_decoder.MAX_ORDER}, received {order}")
    if not 1 <= multiplier < 1e6:
        raise ValueError(f"expected a space multiplier of at least 1, received {multiplier}")
    return order, multiplier, kind, has_words


def _buckets(count: int, multiplier: float) -> int:
    return max(count + 1, int(np.float32(multiplier) * np.float32(count)))


def _filled(table: np.ndarray) -> np.ndarray:
    return table[table["key"] != 0]


def _bound_log_probs(values: np.ndarray) -> None:
    """Limit values [N, 2]: where an ARPA file has −inf, KenLM has −99. Signs are marks, and stay."""
    log_probs = values[:, 0]
    infinite = np.isinf(log_probs)
    log_probs[infinite] = np.copysign(np.float32(_LOG_ZERO), log_probs[infinite])


class Binary(NamedTuple):
    """What a file holds.

    tables: those of ``NGramLM.tensors``; bos, eos: ids of ``<s>`` and ``</s>``; end: the byte behind the model, where a
    scorer package may follow; ngrams: for each order, words, log-probabilities and back-off weights, if they were to be
    kept and the file is a trie.
    """

    tables: dict[str, np.ndarray]
    order: int
    bos: int
    eos: int
    end: int
    ngrams: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None


def read(
    path: str | os.PathLike[str],
    words: Iterable[str] | None = None,
    keep_ngrams: bool = False,
    mapped: bool | None = None,
) -> Binary:
    """words: the vocabulary, for a file that does not have it; mapped: see ``NGramLM.from_kenlm_binary``."""
    parts = _Parts(path)
    order, multiplier, kind, has_words = _header(parts)
    counts = parts.take("<u8", order)
    parts.take("u1", -parts.at % 8)
    ngrams = None
    if mapped and kind < _TRIE:
        raise ValueError(f"expected a trie, which can be mapped, received {_TYPES[kind]!r}")
    if mapped is None:
        mapped = kind >= _TRIE and len(parts.bytes) > MAPPED_BYTES
    if kind >= _TRIE:
        file = parts.bytes[parts.at :]
        shape = np.array([kind in _QUANTISED, kind in _COMPRESSED, *counts.view("<i8")], np.int64)
        tables, read = _map_trie(file, shape) if mapped else _decoder.read_kenlm_trie(file, shape)
        ngrams = _decoder.list_kenlm_trie(file, shape) if keep_ngrams else None
        parts.at += read
    else:
        tables = _read_probing(
            parts, [int(count) for count in counts], multiplier, rest_costs=kind == _REST_PROBING
        )
    size, find = len(tables["unigrams"]), _finder(tables)
    if has_words:
        strings = _take_strings(parts, size)
        # Mapped ones keep their NULs.
        tables["strings"] = strings if mapped else np.where(strings == 0, np.uint8(ord("\n")), strings)
    else:
        tables["strings"] = np.zeros(0, np.uint8) if words is None else _match(words, find, size)
    _check_rest(parts)
    bos, eos = (_word_id(find, size, mark) for mark in ("<s>", "</s>"))
    return Binary(tables, order, bos, eos, parts.at, ngrams)


def _map_trie(file: np.ndarray, shape: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    trie = _decoder.MappedTrie(file, shape)
    return {"unigrams": trie.unigrams(), "trie": file[: trie.bytes], "trie_shape": shape}, trie.bytes


def _finder(tables: dict[str, np.ndarray]) -> Callable[[str], int | None]:
    """Finds the ids of words; 0 or None if there is none."""
    if "trie" in tables:
        return _decoder.MappedTrie(tables["trie"], tables["trie_shape"]).find_word
    return lambda word: _decoder.find_word(tables["words"], word)


def describe(path: str | os.PathLike[str]) -> dict[str, str]:
    """Names and values in words."""
    parts = _Parts(path)
    order, multiplier, kind, has_words = _header(parts)
    counts = [int(count) for count in parts.take("<u8", order)]
    parts.take("u1", -parts.at % 8)
    facts = {"kind": f"KenLM's {_TYPES[kind]}", "order": str(order)}
    facts |= {f"{n}-grams": str(count) for n, count in enumerate(counts, 1)}
    facts["words"] = "in the file" if has_words else WORDS_MISSING
    if kind in _QUANTISED:
        bits = parts.bytes[parts.at + 8 * (counts[0] + 1) :][:3].tolist()
        if len(bits) == 3:
            facts["bits"] = f"{bits[1]} of probabilities, {bits[2]} of back-off weights"
    elif kind < _TRIE:
        facts["space multiplier"] = f"{multiplier:g}"
    return facts


def _read_probing(
    parts: _Parts, counts: list[int], multiplier: float, rest_costs: bool
) -> dict[str, np.ndarray]:
    if max(counts) > len(parts.bytes):
        raise ValueError(f"expected counts that fit into {len(parts.bytes)} bytes, received {counts}")
    version, size = (int(value) for value in parts.take("<u4", 2))
    if version != 0 or not 1 <= size <= counts[0] + 1:
        raise ValueError(
            f"expected at most {counts[0] + 1} words (version 0), received {size} (version {version})"
        )
    words = _filled(parts.take(_WORD, _buckets(counts[0], multiplier)))
    if len(words) != size - 1 or (len(words) and words["id"].max() >= size):
        raise ValueError(f"expected {size - 1} words with ids below {size}, received others")
    # Rest costs are estimates of scores without context. Scores do not need them.
    columns = 3 if rest_costs else 2
    unigrams = parts.take("<f4", columns * (counts[0] + 1)).reshape(-1, columns)[:size, :2]

    middle_type = _MIDDLE_REST if rest_costs else _MIDDLE
    middle = [_filled(parts.take(middle_type, _buckets(count, multiplier))) for count in counts[1:-1]]
    longest = _filled(parts.take(_LONGEST, _buckets(counts[-1], multiplier)))
    last = np.zeros((len(longest), 2), "<f4")
    last[:, 0] = longest["log_prob"]
    last[:, 1] = -0.0
    keys = np.concatenate([*(table["key"] for table in middle), longest["key"]])
    payloads = np.concatenate([*(table["payload"] for table in middle), last.view("<u8").reshape(-1)])
    unigrams = np.array(unigrams)
    for values in (unigrams, payloads.view("<f4").reshape(-1, 2)):
        _bound_log_probs(values)
    return {
        "unigrams": unigrams,
        "ngrams": _decoder.make_hash_table(keys, payloads),
        "words": _decoder.make_hash_table(words["key"], words["id"].astype("<u8")),
    }


def _take_strings(parts: _Parts, size: int) -> np.ndarray:
    """The words by id, each with a NUL."""
    rest, seen, end = parts.bytes[parts.at :], 0, 0
    while seen < size and end < len(rest):
        nuls = np.flatnonzero(rest[end : end + _STRINGS_AT_ONCE] == 0)[: size - seen]
        seen += len(nuls)
        end += int(nuls[-1]) + 1 if seen == size else _STRINGS_AT_ONCE
    if seen < size:
        raise ValueError(f"expected {size} words at the end, received {seen}: the file is cut short")
    strings = parts.take("u1", end)
    if (strings == ord("\n")).any() or bytes(strings[: len(_FIRST_WORD)]) != _FIRST_WORD:
        raise ValueError(
            "expected words without line feeds, <unk> first, received others: the file is damaged"
        )
    return strings


def _check_rest(parts: _Parts) -> None:
    """Behind the model is the end of the file, or a scorer package."""
    rest = bytes(parts.bytes[parts.at :][: len(_FIRST_WORD)])
    if rest == _FIRST_WORD:
        raise ValueError("expected no words, as the header says, received some: the file is damaged")
    if not PACKAGE_MAGIC.startswith(rest[: len(PACKAGE_MAGIC)]):
        raise ValueError(
            f"expected the end of the file, received {len(parts.bytes) - parts.at} bytes more: the file is damaged"
        )


def _match(words: Iterable[str], find: Callable[[str], int | None], size: int) -> np.ndarray:
    """The words by id, each with a line feed, found among given ones by the hashes that the file has of them."""
    found: list[str | None] = [None] * size
    found[0] = "<unk>"
    for word in ("<s>", "</s>", *words):
        if index := find(word):
            found[index] = word
    missing = sum(word is None for word in found)
    if missing:
        raise ValueError(
            f"words: expected all {size} words of the model, received none for {missing} of them"
        )
    return np.frombuffer(bytearray("".join(f"{word}\n" for word in found).encode()), np.uint8)


def _word_id(find: Callable[[str], int | None], size: int, word: str) -> int:
    """The id of a word that has to be there."""
    found = find(word)
    if not found or found >= size:
        raise ValueError(f"expected the word {word}, received none")
    return found
