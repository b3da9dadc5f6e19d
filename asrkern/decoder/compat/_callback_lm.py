"""A language model of the caller's, asked in Python, and the beam search that asks it.

The search is that of :class:`asrkern.decoder.CTCBeamDecoder`, a frame at a time with prefixes kept apart by their tokens
and words, in Python.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from asrkern._lengths import Lengths, as_lengths
from asrkern.decoder._tokens import BEGINS_WORD, ENDS_WORD, INSIDE_WORD, Tokens, as_read
from asrkern.decoder.hypothesis import Hypothesis, Word
from asrkern.reference.ctc_beam_search import log_add as log_sum

_UNKNOWN = -1
_IMPOSSIBLE = -math.inf


class CTCDecoderLMState:
    """A state of a language model of one's own: a node of a tree, whose children are states after one more word.

    Attributes:
        children: the children made so far, by the index of their word.
    """

    def __init__(self) -> None:
        self.children: dict[int, CTCDecoderLMState] = {}

    def child(self, usr_index: int) -> CTCDecoderLMState:
        """The state after a word, made if it is not there yet.

        Args:
            usr_index: the word's index.
        """
        return self.children.setdefault(usr_index, type(self)())

    def compare(self, state: CTCDecoderLMState) -> int:
        """0 if both are one state; else −1 or 1, an order.

        Args:
            state: the other.
        """
        return (id(self) > id(state)) - (id(self) < id(state))


class CTCDecoderLM(abc.ABC):
    """A language model of one's own: subclass it, and pass an instance as ``lm``.

    It is asked for each word of the lexicon once at the start, then once for each history and word that the search
    comes by. Without lexicon its words are tokens.
    """

    @abc.abstractmethod
    def start(self, start_with_nothing: bool) -> Any:
        """The state before the first word.

        Args:
            start_with_nothing: False: a sentence begins.
        """

    @abc.abstractmethod
    def score(self, state: Any, usr_token_idx: int) -> tuple[Any, float]:
        """The state after a word, and the word's score, which ``lm_weight`` multiplies.

        Args:
            state: before it.
            usr_token_idx: the word's index, in ``lm_dict`` or in the order of the lexicon; without lexicon the token's.
        """

    @abc.abstractmethod
    def finish(self, state: Any) -> tuple[Any, float]:
        """The state after the sentence's end, and the end's score.

        Args:
            state: after the last word.
        """


class CallbackOptions(NamedTuple):
    """ctc_decoder's arguments that the search takes, scores in nats; unk_score is what an unknown word adds in place of
    word_score."""

    nbest: int
    beam_size: int
    top_tokens: int
    beam_threshold: float
    lm_weight: float
    word_score: float
    unk_score: float
    log_add: bool


class _Path(NamedTuple):
    """The best alignment of a prefix: its score, and where its tokens begin and end, the last one's so far."""

    score: float
    starts: tuple[int, ...]
    ends: tuple[int, ...]


_NO_PATH = _Path(_IMPOSSIBLE, (), ())


class _Scores(NamedTuple):
    """Of the alignments that end in blank, and of those that end in the last token: sums, and the best."""

    blank: float
    token: float
    best_blank: _Path
    best_token: _Path


class _Prefix(NamedTuple):
    """tokens; words: indices of those that have ended; node: in the lexicon, of the unfinished one."""

    tokens: tuple[int, ...]
    words: tuple[int, ...]
    node: int


class _State:
    """A stream: its beam, and how many frames it has taken."""

    def __init__(self) -> None:
        nothing = _Scores(0.0, _IMPOSSIBLE, _Path(0.0, (), ()), _NO_PATH)
        self.beam: dict[_Prefix, _Scores] = {_Prefix((), (), 0): nothing}
        self.frames = 0


class CallbackDecoder:
    """A beam search with a :class:`CTCDecoderLM`, with the methods that CTCDecoder asks of CTCBeamDecoder.

    tokens: what each label does. spellings: of each word as indices of labels, without spaces; None: no lexicon.
    lm_words: the index of each word in the language model, and last the unknown word's.
    """

    def __init__(
        self,
        lm: CTCDecoderLM,
        tokens: Tokens,
        spellings: Mapping[str, Sequence[Sequence[int]]] | None,
        lm_words: Sequence[int],
        options: CallbackOptions,
    ) -> None:
        self._lm, self._tokens, self._options = lm, tokens, options
        self._lm_words = lm_words
        self._names = None if spellings is None else list(spellings)
        self._start = lm.start(False)
        # (words, word) → the state behind it, and its score.
        self._scores: dict[tuple[int, ...], tuple[Any, float]] = {(): (self._start, 0.0)}
        # The lexicon's nodes: their edges, the words that end there, and the best score that may be expected.
        self._edges: list[dict[int, int]] = [{}]
        self._ends: list[list[int]] = [[]]
        self._expected: list[float] = [0.0]
        self._of_unknown = options.unk_score
        for word, several in enumerate((spellings or {}).values()):
            for spelling in several:
                self._add(word, spelling, self._gain((), word))
        if options.unk_score > _IMPOSSIBLE:
            self._of_unknown = self._gain((), _UNKNOWN)

    def decode(self, emissions: Tensor, lengths: Lengths | None = None) -> list[list[tuple[Hypothesis, int]]]:
        """The n-best of each row [N, T, V], with the end of each last token."""
        counts = as_lengths("lengths", lengths, len(emissions))
        frames = [emissions.shape[1]] * len(emissions) if counts is None else counts.tolist()
        found = []
        for row, count in zip(emissions, frames):
            if not 0 <= count <= len(row):
                raise ValueError(f"lengths: expected 0 to {len(row)} frames, received {count}")
            state = self.start()
            self.step(state, row[:count])
            found.append(self.finish(state))
        return found

    def start(self) -> _State:
        """A new stream."""
        return _State()

    def step(self, state: _State, emissions: Tensor) -> None:
        """Take frames [frames, V]."""
        if emissions.shape[1] != len(self._tokens.labels):
            raise ValueError(
                f"log_probs: expected {len(self._tokens.labels)} values a frame, received shape {tuple(emissions.shape)}"
            )
        rows = emissions.double().numpy()
        if np.isnan(rows).any():
            raise ValueError("log_probs: expected numbers, received NaN")
        for row in rows:
            self._step(state, row)

    def finish(self, state: _State) -> list[tuple[Hypothesis, int]]:
        """The n-best of the frames so far, their last words and the sentence ended."""
        # Prefixes with equal words (without lexicon: with equal tokens) are one.
        same: dict[tuple[Any, ...], list[tuple[float, _Prefix, _Scores]]] = {}
        for whole in (True, False):
            # Unfinished words end only where there is no other ending.
            for prefix, scores in state.beam.items():
                for words in self._completed(prefix) if whole else [prefix.words]:
                    key = prefix.tokens if self._names is None else self._texts(prefix, words)
                    same.setdefault(key, []).append((self._worth(words, True), prefix, scores))
            if same:
                break
        found = [self._joined(key, several) for key, several in same.items()]
        return sorted(found, key=lambda one: -one[0].score)[: self._options.nbest]

    def _texts(self, prefix: _Prefix, words: tuple[int, ...]) -> tuple[str, ...]:
        """The words of a prefix; those that the lexicon lacks as they are spelled."""
        spelled: list[str] = []
        inside = False
        for token in prefix.tokens:
            kind = self._tokens.kinds[token]
            if kind == BEGINS_WORD or (kind == INSIDE_WORD and not inside):
                spelled.append("")
            inside = kind != ENDS_WORD
            if inside:
                spelled[-1] += self._tokens.texts[token]
        if self._tokens.need_reading:
            spelled = [*map(as_read, spelled)]
        names = self._names or []
        known = [names[word] if word != _UNKNOWN else text for word, text in zip(words, spelled)]
        return (*known, *spelled[len(known) :])

    def _joined(
        self, key: tuple[Any, ...], several: Sequence[tuple[float, _Prefix, _Scores]]
    ) -> tuple[Hypothesis, int]:
        joined = log_sum if self._options.log_add else max
        totals = [self._total(scores) for *_, scores in several]
        score = joined(*(total + gain for total, (gain, *_) in zip(totals, several)), _IMPOSSIBLE)
        am_score = joined(*totals, _IMPOSSIBLE)
        _, prefix, scores = max(several, key=lambda one: one[0] + self._total(one[2]))
        path = max(scores.best_blank, scores.best_token, key=lambda path: path.score)
        words = [] if self._names is None else [Word(text, 0, 0, 1.0) for text in key]
        text = self._tokens.joiner.join(word.text for word in words)
        found = Hypothesis(
            text, list(prefix.tokens), list(path.starts), words, score, am_score, score - am_score
        )
        return found, (path.ends[-1] if path.ends else 0)

    def _step(self, state: _State, row: np.ndarray) -> None:
        options, blank = self._options, self._tokens.blank
        order = np.argsort(-row, kind="stable")[: options.top_tokens]
        following: dict[_Prefix, list[_Scores]] = {}
        frame = state.frames

        def add(prefix: _Prefix, *scores: Any) -> None:
            following.setdefault(prefix, []).append(_Scores(*scores))

        for prefix, scores in state.beam.items():
            total = self._total(scores)
            best = max(scores.best_blank, scores.best_token, key=lambda path: path.score)
            for token in map(int, order):
                log_p = float(row[token])
                if token == blank:
                    add(prefix, total + log_p, _IMPOSSIBLE, best._replace(score=best.score + log_p), _NO_PATH)
                    continue
                before, path = total, best
                if prefix.tokens and prefix.tokens[-1] == token:
                    last = scores.best_token
                    if last.score > _IMPOSSIBLE:
                        longer = _Path(last.score + log_p, last.starts, (*last.ends[:-1], frame + 1))
                        add(prefix, _IMPOSSIBLE, scores.token + log_p, _NO_PATH, longer)
                    before, path = scores.blank, scores.best_blank
                if before == _IMPOSSIBLE:
                    continue
                path = _Path(path.score + log_p, (*path.starts, frame), (*path.ends, frame + 1))
                for extended in self._extended(prefix, token):
                    add(extended, _IMPOSSIBLE, before + log_p, _NO_PATH, path)
        merged = {prefix: self._merged(several) for prefix, several in following.items()}
        totals = {
            prefix: self._total(scores) + self._worth(prefix.words) + self._look_ahead(prefix.node)
            for prefix, scores in merged.items()
        }
        least = max(totals.values(), default=_IMPOSSIBLE) - options.beam_threshold
        kept = [p for p, total in totals.items() if total >= least and total > _IMPOSSIBLE]
        if not kept:
            raise ValueError(
                f"log_probs: no prefix of the beam can go on: the lexicon allows none of the possible tokens (at frame {frame})"
            )
        kept = sorted(kept, key=lambda p: -totals[p])[: options.beam_size]
        state.beam = {prefix: merged[prefix] for prefix in kept}
        state.frames += 1

    def _total(self, scores: _Scores) -> float:
        if self._options.log_add:
            return log_sum(scores.blank, scores.token)
        return max(scores.blank, scores.token)

    def _merged(self, several: Sequence[_Scores]) -> _Scores:
        if len(several) == 1:
            return several[0]
        joined = log_sum if self._options.log_add else max
        return _Scores(
            joined(*(scores.blank for scores in several)),
            joined(*(scores.token for scores in several)),
            max((scores.best_blank for scores in several), key=lambda path: path.score),
            max((scores.best_token for scores in several), key=lambda path: path.score),
        )

    def _extended(self, prefix: _Prefix, token: int) -> list[_Prefix]:
        """The prefixes that a token makes of one: several if the word that it ends has homophones."""
        tokens = (*prefix.tokens, token)
        if self._names is None:
            return [_Prefix(tokens, (*prefix.words, token), 0)]
        kind = self._tokens.kinds[token]
        node = 0 if kind == ENDS_WORD else self._next(0 if kind == BEGINS_WORD else prefix.node, token)
        if node is None:
            return []
        if kind == INSIDE_WORD:
            return [_Prefix(tokens, prefix.words, node)]
        return [_Prefix(tokens, words, node) for words in self._completed(prefix)]

    def _next(self, node: int, token: int) -> int | None:
        if node != _UNKNOWN and token in self._edges[node]:
            return self._edges[node][token]
        return _UNKNOWN if self._options.unk_score > _IMPOSSIBLE else None

    def _completed(self, prefix: _Prefix) -> list[tuple[int, ...]]:
        """The words of a prefix whose last word ends, as each that it may be; none if it may be none."""
        if prefix.node == 0:
            return [prefix.words]
        words = [] if prefix.node == _UNKNOWN else self._ends[prefix.node]
        if not words and self._options.unk_score > _IMPOSSIBLE:
            words = [_UNKNOWN]
        return [(*prefix.words, word) for word in words]

    def _worth(self, words: tuple[int, ...], whole: bool = False) -> float:
        """What ended words are worth. whole: the sentence ends, too."""
        score = 0.0
        state = self._start
        if words:
            if words not in self._scores:
                before = self._worth(words[:-1])
                state = self._scores[words[:-1]][0]
                after, own = self._ask(state, words[-1])
                self._scores[words] = (after, before + own)
            state, score = self._scores[words]
        if whole:
            score += self._options.lm_weight * float(self._lm.finish(state)[1])
        return score

    def _gain(self, words: tuple[int, ...], word: int) -> float:
        """What a word is worth behind others."""
        return self._worth((*words, word)) - self._worth(words)

    def _ask(self, state: Any, word: int) -> tuple[Any, float]:
        options = self._options
        after, score = self._lm.score(state, word if self._names is None else self._lm_words[word])
        if self._names is None:
            return after, options.lm_weight * float(score)
        return after, options.lm_weight * float(score) + (
            options.unk_score if word == _UNKNOWN else options.word_score
        )

    def _look_ahead(self, node: int) -> float:
        return self._of_unknown if node == _UNKNOWN else self._expected[node]

    def _add(self, word: int, spelling: Sequence[int], score: float) -> None:
        node = 0
        for token in spelling:
            if token not in self._edges[node]:
                self._edges[node][token] = len(self._edges)
                self._edges.append({})
                self._ends.append([])
                self._expected.append(_IMPOSSIBLE)
            node = self._edges[node][token]
            self._expected[node] = max(self._expected[node], score)
        if word not in self._ends[node]:
            self._ends[node].append(word)
