"""Writes scorer packages of DeepSpeech and Coqui STT: what the format's description says, in Python."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

# For each state: whether a word may end there, and its arcs (label, next state).
Automaton = list[tuple[bool, list[tuple[int, int]]]]


def automaton(words: Iterable[str], alphabet: Sequence[str]) -> Automaton:
    """The smallest automaton of words, each with a space at its end; equal rests of words share their states."""
    states: Automaton = [(False, [])]
    known: dict[tuple, int] = {}

    def add(rests: set[tuple[int, ...]]) -> int:
        heads = sorted({rest[0] for rest in rests if rest})
        arcs = [(head, add({rest[1:] for rest in rests if rest[:1] == (head,)})) for head in heads]
        state = (() in rests, tuple(arcs))
        if state not in known:
            known[state] = len(states)
            states.append((() in rests, arcs))
        return known[state]

    spelled = {tuple(alphabet.index(letter) + 1 for letter in f"{word} ") for word in words}
    # State 0 begins, as OpenFst has it.
    states[0] = states[add(spelled)]
    return states


def fst(
    states: Automaton, at: int, *, kind: str = "const", fst_version: int = 0, flags: int = 0, start: int = 0
) -> bytes:
    """The file of an automaton that begins at a byte of the package; const files of version 1 are aligned."""
    version = fst_version or {"const": 1, "vector": 2}.get(kind, 1)
    arcs = sum(len(edges) for _, edges in states)
    content = struct.pack("<i", 2125659606)
    for text in (kind, "standard"):
        content += struct.pack("<i", len(text)) + text.encode()
    content += struct.pack("<iiQqqq", version, flags, 3, start, len(states), arcs)
    weights = [0.0 if final else math.inf for final, _ in states]
    edges = [
        b"".join(struct.pack("<iifi", label, label, 0, to) for label, to in edges) for _, edges in states
    ]
    if kind == "vector":
        for weight, (_, arcs_of), packed in zip(weights, states, edges):
            content += struct.pack("<fq", weight, len(arcs_of)) + packed
        return content
    aligned = version == 1 or flags & 4
    content += bytes(-(at + len(content)) % 16 * bool(aligned))
    first = 0
    for weight, (_, arcs_of) in zip(weights, states):
        content += struct.pack("<f4I", weight, first, len(arcs_of), 0, 0)
        first += len(arcs_of)
    content += bytes(-(at + len(content)) % 16 * bool(aligned))
    return content + b"".join(edges)


def package(
    lm: bytes,
    states: Automaton,
    *,
    alpha: float = 0.75,
    beta: float = 1.85,
    magic: bytes = b"EIRT",
    version: int = 6,
    is_bytes: bool = False,
    **options: object,
) -> bytes:
    """lm: a file of KenLM without words; options: of :func:`fst`."""
    content = lm + magic + struct.pack("<i?dd", version, is_bytes, alpha, beta)
    return content + fst(states, len(content), **options)
