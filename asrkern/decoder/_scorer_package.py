"""Scorer packages (``.scorer``) of DeepSpeech and Coqui STT: a language model, the words allowed, and the weights.

A package is a binary file of KenLM without words, and behind it: ``TRIE`` as a number, which is EIRT in bytes, the version of the package,
whether it is for bytes (UTF-8 mode), alpha, beta, and the words as an acceptor of OpenFst, of type const or vector. Its
label n is the letter n − 1 of the alphabet, and words end with the label of the space. The layout is that of
native_client/ctcdecode/scorer.cpp in Coqui STT 1.4, whose packages are DeepSpeech's since 0.7, and of OpenFst 1.6.7.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asrkern.decoder._tokens import ENDS_WORD, Tokens

MAGIC, _VERSION = b"EIRT", 6
_HEADER = struct.Struct("<4si?dd")
_FST_MAGIC = 2125659606
_FST_NUMBERS = struct.Struct("<iiQqqq")  # version, flags, properties, start, states, arcs
_HAS_SYMBOLS, _IS_ALIGNED, _ALIGNMENT = 3, 4, 16
# In a const FST all states come before all arcs. In a vector FST each state's arcs follow it.
_STATE = np.dtype([("final", "<f4"), ("at", "<u4"), ("arcs", "<u4"), ("epsilons", "<u4", 2)])
_VECTOR_STATE = struct.Struct("<fq")
_ARC = np.dtype([("label", "<i4"), ("output", "<i4"), ("weight", "<f4"), ("next", "<i4")])
_LETTERS_PER_BYTE = 8
# Spelling takes the square of it.
_LONGEST_WORD = 1000


class Package(NamedTuple):
    """What stands behind the language model: weights, and the words as numbers of labels, the space left out."""

    alpha: float
    beta: float
    words: Acceptor


class Acceptor(NamedTuple):
    """An automaton without weights. The arcs of state s are first[s] … first[s + 1] − 1."""

    start: int
    final: np.ndarray
    first: np.ndarray
    labels: np.ndarray
    targets: np.ndarray


class _Reader:
    def __init__(self, content: memoryview, at: int) -> None:
        self.content, self.at = content, at

    def bytes(self, count: int, what: str) -> memoryview:
        left = len(self.content) - self.at
        if not 0 <= count <= left:
            raise ValueError(
                f"{what}: expected {count} bytes, received the last {left} of the file: it is cut short"
            )
        self.at += count
        return self.content[self.at - count : self.at]

    def unpack(self, form: struct.Struct, what: str) -> tuple:
        return form.unpack(self.bytes(form.size, what))

    def array(self, dtype: np.dtype, count: int, what: str) -> np.ndarray:
        return np.frombuffer(self.bytes(count * dtype.itemsize, what), dtype)

    def text(self, what: str) -> str:
        (count,) = struct.unpack("<i", self.bytes(4, what))
        return bytes(self.bytes(count, what)).decode(errors="backslashreplace")

    def align(self) -> None:
        self.at += -self.at % _ALIGNMENT


def read(path: str | os.PathLike[str], end_of_lm: int) -> Package:
    """What stands behind the language model, which ends at a byte of the file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no package, or is damaged.
    """
    with open(path, "rb") as file:
        file.seek(end_of_lm)
        # Alignment is of places in the file.
        content = memoryview(bytes(end_of_lm % _ALIGNMENT) + file.read())
    reader = _Reader(content, end_of_lm % _ALIGNMENT)
    if reader.at == len(content):
        raise ValueError("expected a scorer package, received a language model alone: NGramLM.open reads it")
    # The reader of the language model lets nothing but a package stand behind it.
    _, version, is_bytes, alpha, beta = reader.unpack(_HEADER, "package")
    if version != _VERSION:
        raise ValueError(f"expected a package of version {_VERSION}, received version {version}")
    if is_bytes:
        raise ValueError(
            "expected a package of letters, received one for bytes (UTF-8 mode, --force_bytes_output_mode): "
            "make it anew from the same text with an alphabet"
        )
    if not (math.isfinite(alpha) and math.isfinite(beta)):
        raise ValueError(f"expected finite alpha and beta, received {alpha} and {beta}")
    return Package(alpha, beta, _read_fst(reader))


def _read_fst(reader: _Reader) -> Acceptor:
    (magic,) = struct.unpack("<i", reader.bytes(4, "words"))
    if magic != _FST_MAGIC:
        raise ValueError("words: expected a binary file of OpenFst, received something else")
    kind, arc_kind = reader.text("words"), reader.text("words")
    version, flags, _, start, states, arcs = reader.unpack(_FST_NUMBERS, "words")
    if arc_kind != "standard":
        raise ValueError(f"words: expected arcs of type 'standard', received {arc_kind[:60]!r}")
    if flags & _HAS_SYMBOLS:
        raise ValueError("words: expected an FST without symbols, received one that has them")
    if states < 1:
        raise ValueError(f"words: expected at least 1 state, received {states}")
    if kind == "const":
        acceptor = _read_const(reader, version, flags, start, states, arcs)
    elif kind == "vector":
        acceptor = _read_vector(reader, start, states)
    else:
        raise ValueError(f"words: expected an FST of type 'const' or 'vector', received {kind[:60]!r}")
    for name, values, least, most in (
        ("start", np.array([acceptor.start]), 0, states - 1),
        ("next state", acceptor.targets, 0, states - 1),
        ("label", acceptor.labels, 1, np.iinfo(np.int32).max),
    ):
        wrong = values[(values < least) | (values > most)]
        if len(wrong):
            raise ValueError(f"words: {name}: expected {least} to {most}, received {wrong[0]}")
    return acceptor


def _read_const(reader: _Reader, version: int, flags: int, start: int, states: int, arcs: int) -> Acceptor:
    if version not in (1, 2):
        raise ValueError(f"words: expected an FST of version 1 or 2, received version {version}")
    aligned = version == 1 or flags & _IS_ALIGNED
    if aligned:
        reader.align()
    table = reader.array(_STATE, states, "states")
    if aligned:
        reader.align()
    edges = reader.array(_ARC, arcs, "arcs")
    first = np.concatenate([[0], np.cumsum(table["arcs"], dtype=np.int64)])
    if first[-1] != arcs or (table["at"] != first[:-1])[table["arcs"] > 0].any():
        raise ValueError(f"words: expected states that share {arcs} arcs, each its own, received others")
    return Acceptor(start, np.isfinite(table["final"]), first, edges["label"], edges["next"])


def _read_vector(reader: _Reader, start: int, states: int) -> Acceptor:
    if states * _VECTOR_STATE.size > len(reader.content) - reader.at:
        raise ValueError(f"states: expected {states} of them, received the end of the file: it is cut short")
    final, first, parts = np.zeros(states, bool), np.zeros(states + 1, np.int64), [np.zeros(0, _ARC)]
    for state in range(states):
        weight, count = reader.unpack(_VECTOR_STATE, "states")
        final[state] = math.isfinite(weight)
        if count:
            parts.append(reader.array(_ARC, count, "arcs"))
        first[state + 1] = first[state] + count
    edges = np.concatenate(parts)
    return Acceptor(start, final, first, edges["label"], edges["next"])


def spell(words: Acceptor, tokens: Tokens, file_bytes: int) -> list[str]:
    """The words that an acceptor allows, spelled by labels.

    Raises:
        ValueError: the acceptor has a cycle, has more words than a file of this size can, or its words are none of
            these labels.
    """
    alphabet = [index for index in range(len(tokens.labels)) if index != tokens.blank]
    spaces = [number for number, index in enumerate(alphabet, 1) if tokens.kinds[index] == ENDS_WORD]
    if len(spaces) != 1:
        raise ValueError(f"labels: expected one label for the space between words, received {len(spaces)}")
    if len(words.labels) and words.labels.max() > len(alphabet):
        raise ValueError(
            f"labels: expected those of the package's alphabet and the blank, which are at least "
            f"{int(words.labels.max()) + 1}, received {len(tokens.labels)}"
        )
    counts = _count_words(words, _LETTERS_PER_BYTE * file_bytes)
    letters = ["", *(tokens.texts[index] for index in alphabet)]
    first, labels, targets = words.first.tolist(), words.labels.tolist(), words.targets.tolist()
    final, space, found = words.final.tolist(), spaces[0], []
    waiting = [(words.start, "")]
    while waiting:
        state, spelled = waiting.pop()
        for arc in range(first[state], first[state + 1]):
            label, target = labels[arc], targets[arc]
            if counts[target] == 0:
                continue
            if label == space and final[target] and counts[target] == 1 and spelled:
                found.append(spelled)
            elif label == space or final[target]:
                _fail_alphabet()
            else:
                waiting.append((target, spelled + letters[label]))
    if not found:
        raise ValueError("words: expected at least one, received none")
    return found


def _fail_alphabet() -> None:
    raise ValueError(
        "labels: expected those of the package's alphabet in its order, received others: its words do not end with "
        "their space"
    )


def _count_words(words: Acceptor, most_letters: int) -> list[int]:
    """How many ways lead from each state to the end of a word; 0 also where no way from the start leads."""
    first, targets = words.first.tolist(), words.targets.tolist()
    final = words.final.tolist()
    counts, letters, longest = [0] * len(final), [0] * len(final), [0] * len(final)
    # 0: not seen; 1: its arcs are being followed; 2: done.
    stage = bytearray(len(final))
    following = [(words.start, first[words.start])] if len(final) else []
    while following:
        state, arc = following.pop()
        stage[state] = 1
        while arc < first[state + 1]:
            target = targets[arc]
            if stage[target] == 1:
                raise ValueError("words: expected an FST without cycles, received one that has one")
            if stage[target] == 0:
                following += [(state, arc), (target, first[target])]
                break
            counts[state] += counts[target]
            letters[state] += letters[target] + counts[target]
            if letters[state] > most_letters:
                raise ValueError(
                    f"words: expected at most {most_letters} letters, as fit a file of this size, received more"
                )
            if counts[target]:
                longest[state] = max(longest[state], longest[target] + 1)
            if longest[state] > _LONGEST_WORD:
                raise ValueError(f"words: expected at most {_LONGEST_WORD} letters each, received more")
            arc += 1
        else:
            counts[state] += final[state]
            stage[state] = 2
    return counts


def check_known(known: int, words: Sequence[str]) -> None:
    """Raise ValueError if a package's language model does not know its words: then labels are in another order."""
    if 2 * known < len(words):
        raise ValueError(
            "labels: expected those of the package's alphabet in its order, received others: its language model knows "
            f"{known} of {len(words)} words, such as {words[0][:60]!r}"
        )
