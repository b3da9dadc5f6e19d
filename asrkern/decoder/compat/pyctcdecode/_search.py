"""pyctcdecode's search, frame by frame in Python: for language models that are no n-gram tables, and for its habits.

A beam is told apart by its text, its unfinished word and its last label, so that one text may be there twice: after a
blank and after its last label. ``parity`` says how beams end (see :func:`search`); all else is the same.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from asrkern.decoder.compat.pyctcdecode.alphabet import BPE_TOKEN
from asrkern.decoder.compat.pyctcdecode.language_model import AbstractLanguageModel, HotwordScorer

Frames = tuple[int, int]
_NO_FRAMES: Frames = (-1, -1)


class _Beam(NamedTuple):
    """text: the words before; next_word: the one that has just ended; part: the unfinished one; last: the last label;
    frames: of the words in text and next_word; part_frames: of part; logit_score: log-probability by CTC."""

    text: str
    next_word: str
    part: str
    last: str | None
    frames: list[Frames]
    part_frames: Frames
    logit_score: float


class _Scored(NamedTuple):
    beam: _Beam
    score: float


class Found(NamedTuple):
    """A text with the language model's state behind its last word, its words' frames and its scores."""

    text: str
    state: Any
    frames: list[Frames]
    logit_score: float
    score: float


class _Words:
    """The scores of texts and of unfinished words, each computed once."""

    def __init__(self, lm: AbstractLanguageModel | None, hotwords: HotwordScorer, start: Any) -> None:
        self._lm, self._hotwords = lm, hotwords
        # (text, whether it is the whole) → (its words' score, the same with hotwords, state behind them)
        self._texts: dict[tuple[str, bool], tuple[float, float, Any]] = {("", False): (0.0, 0.0, start)}
        self._parts: dict[str, float] = {}

    def state(self, text: str, whole: bool) -> Any:
        known = self._texts.get((text, whole))
        return None if known is None else known[2]

    def total(self, beam: _Beam, whole: bool = False, parity: bool = False) -> float:
        """A beam's score. whole: the sentence ends behind it."""
        text = _joined(beam.text, beam.next_word)
        if self._lm is None:
            return beam.logit_score + self._hotwords.score(text) + self.part(beam.part)
        if (text, whole) not in self._texts:
            before, _, state = self._texts[beam.text, False]
            if beam.next_word or parity:
                score, after = self._lm.score(state, beam.next_word, is_last_word=whole)
            else:
                score, after = self._lm.score_end(state), state
            of_words = before + score
            self._texts[text, whole] = (of_words, of_words + self._hotwords.score(text), after)
        return beam.logit_score + (self._texts[text, whole][1] + self.part(beam.part))

    def part(self, part: str) -> float:
        """What an unfinished word is worth."""
        if not part:
            return 0.0
        if part not in self._parts:
            of_hotwords = self._lm is None or part in self._hotwords
            scorer: Any = self._hotwords if of_hotwords else self._lm
            self._parts[part] = scorer.score_partial_token(part)
        return self._parts[part]


def search(
    log_probs: np.ndarray,
    labels: Sequence[str],
    is_bpe: bool,
    lm: AbstractLanguageModel | None,
    hotwords: HotwordScorer,
    *,
    beam_width: int,
    beam_prune_logp: float,
    token_min_logp: float,
    prune_history: bool,
    lm_state: Any,
    end_of_sentence: bool,
    parity: bool,
) -> list[Found]:
    """The beams of log-probabilities [T, V], the best first.

    lm_state: None: the model's start. parity: behind a space at the end an empty word is scored, as an unknown one; else
    nothing is but the sentence's end. end_of_sentence: whether the sentence ends, too.
    """
    start = lm.get_start_state() if lm is not None and lm_state is None else lm_state
    words = _Words(lm, hotwords, start)
    beams = [_Beam("", "", "", None, [], _NO_FRAMES, 0.0)]
    # pyctcdecode keeps this one flag for all beams: behind "▁⁇▁" a word begins.
    break_next = False
    for frame, row in enumerate(log_probs):
        extended: list[_Beam] = []
        # A set's order decides which of equal beams are kept.
        for token in set(np.where(row >= token_min_logp)[0]) | {row.argmax()}:
            label, log_p = labels[token], row[token]
            for text, next_word, part, last, frames, part_frames, before in beams:
                logit_score = before + log_p
                if label == "":
                    beam = _Beam(text, next_word, part, label, frames, part_frames, logit_score)
                elif label == last:
                    part_frames = (part_frames[0], frame + 1)
                    beam = _Beam(text, next_word, part, label, frames, part_frames, logit_score)
                elif (label == " ") if not is_bpe else (label[:1] == BPE_TOKEN or break_next):
                    # The word ends.
                    frames = [*frames, part_frames] if part else frames
                    begun, part_frames = "", _NO_FRAMES
                    if is_bpe:
                        break_next = label[-1:] == BPE_TOKEN
                        begun = label.removeprefix(BPE_TOKEN).removesuffix(BPE_TOKEN)
                        part_frames = (frame, frame + 1)
                    beam = _Beam(text, part, begun, label, frames, part_frames, logit_score)
                else:
                    part_frames = (frame if part_frames[0] < 0 else part_frames[0], frame + 1)
                    beam = _Beam(text, next_word, part + label, label, frames, part_frames, logit_score)
                extended.append(beam)
        scored = []
        for beam in _merged(extended):
            text = _joined(beam.text, beam.next_word)
            scored.append(_Scored(_Beam(text, "", *beam[2:]), words.total(beam)))
        kept = _best(scored, beam_width, beam_prune_logp)
        beams = [one.beam for one in kept]
        if prune_history:
            beams = _without_history(beams, 1 if lm is None else lm.order)

    ended = [
        beam._replace(
            next_word=beam.part, part="", last=None, part_frames=_NO_FRAMES,
            frames=beam.frames if beam.part == "" else [*beam.frames, beam.part_frames],
        )
        for beam in beams
    ]  # fmt: skip
    scored = [_Scored(beam, words.total(beam, end_of_sentence, parity)) for beam in _merged(ended)]
    found = []
    for beam, score in _best(scored, beam_width, beam_prune_logp):
        text = _joined(beam.text, beam.next_word)
        state = words.state(text, end_of_sentence)
        found.append(Found(" ".join(text.split()), state, beam.frames, beam.logit_score, score))
    return found


def _joined(text: str, word: str) -> str:
    return f"{text} {word}" if text and word else text or word


def _merged(beams: Iterable[_Beam]) -> list[_Beam]:
    """Equal beams as one, with the times of the last."""
    known: dict[tuple[str, str, str | None], _Beam] = {}
    for beam in beams:
        key = (_joined(beam.text, beam.next_word), beam.part, beam.last)
        same = known.get(key)
        known[key] = beam if same is None else _Beam(*beam[:-1], _log_sum(same.logit_score, beam.logit_score))
    return list(known.values())


def _log_sum(a: float, b: float) -> float:
    high, low = (a, b) if a >= b else (b, a)
    return high + math.log(1 + math.exp(low - high))


def _best(scored: list[_Scored], beam_width: int, beam_prune_logp: float) -> list[_Scored]:
    least = max(one.score for one in scored) + beam_prune_logp
    return heapq.nlargest(
        beam_width, (one for one in scored if one.score >= least), key=lambda one: one.score
    )


def _without_history(beams: Iterable[_Beam], order: int) -> list[_Beam]:
    """Of beams that differ only in words further back than the language model looks, the best."""
    kept: dict[tuple[tuple[str, ...], str, str | None], _Beam] = {}
    for beam in beams:
        kept.setdefault((tuple(beam.text.split()[-max(1, order - 1) :]), beam.part, beam.last), beam)
    return list(kept.values())
