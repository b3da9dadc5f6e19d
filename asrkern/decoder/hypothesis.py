"""What a beam search finds: texts with their words, times and scores; of a stream, also what may still change."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from asrkern import _decoder
from asrkern.decoder._context import ENDS_WORD

if TYPE_CHECKING:
    from asrkern.decoder.beam import CTCBeamDecoder


class Word(NamedTuple):
    """A word of a hypothesis.

    text: the word; start, end: frames of the best alignment, from the first to the one after the last; confidence: the
    posterior probability of the word within the beam, that is, the share, by e^score, of the hypotheses that have it at
    an overlapping time.
    """

    text: str
    start: int
    end: int
    confidence: float


class Hypothesis(NamedTuple):
    """One text that an utterance may be.

    Several sequences of labels may have one text: with more spaces between or around words, or with words spelled by
    other labels. Scores are those of the text, sums over all these sequences; tokens and times are those of the
    likeliest.

    Attributes:
        text: the words, with a space between them where the labels have one.
        tokens: indices of labels, without blanks and repeats.
        timesteps: the frame where each token begins in the best alignment.
        words: the text's words with their times.
        score: ``am_score + lm_score``, natural logarithm.
        am_score: log-probability of the text by CTC (within the beam: of the alignments that were kept).
        lm_score: ``alpha · ln p_lm + beta · words``, with unk_score and hotwords. If it differs between sequences of
            labels (a model of characters counts spaces), the mean weighted by their probabilities.
    """

    text: str
    tokens: list[int]
    timesteps: list[int]
    words: list[Word]
    score: float
    am_score: float
    lm_score: float


class Partial:
    """What is known of a stream so far: words that no later frame changes, then what may still change.

    A caller that asks for the words behind those that it has gets each word once, and pays only for what is new.
    ``hypothesis`` and ``stable_text`` are about the whole text: they are made when asked for, in time that grows with
    its length. :meth:`CTCBeamDecoder.partial` makes it from a ``decoder``, a ``state``, ``after`` and what it has
    ``found``.

    Attributes:
        words: words that no later frame changes, as :meth:`CTCBeamDecoder.finish` will return them; without those that
            the caller had.
        word_count: how many such words there are, with those that the caller had.
        tail: the best text so far behind all of these words.
        stable_tokens: how many tokens of the hypothesis no later frame changes.
    """

    def __init__(
        self, decoder: CTCBeamDecoder, state: _decoder.CtcBeamState, after: int, found: tuple[Any, ...]
    ) -> None:
        columns, self._best, self._first, self.word_count, self.stable_tokens = found
        self._decoder, self._state = decoder, state
        self.words: list[Word] = decoder._read_one(columns)[2]
        self.tail: str = decoder.join(decoder._read_one(self._best[2:])[2])

    @cached_property
    def hypothesis(self) -> Hypothesis:
        """The best whole text so far, if more frames were to come."""
        return self._decoder._hypothesis(*self._best[:2], *self._decoder._read_one(self._columns))

    @cached_property
    def stable_text(self) -> str:
        """The text of the complete words among the stable tokens. Their times may still change."""
        words = self._decoder._read_one([column[: self.stable_tokens] for column in self._columns])[2]
        tokens = self._decoder._built.tokens
        # The last word may still grow, unless a token has ended it.
        if words and tokens.joiner and tokens.kinds[self._columns[0][self.stable_tokens - 1]] != ENDS_WORD:
            words.pop()
        return self._decoder.join(words)

    @cached_property
    def _columns(self) -> list[list[Any]]:
        # Committed tokens stay the same, however far the state has gone on since.
        before = self._decoder._search.committed(self._state, self._first)
        return [head + tail for head, tail in zip(before, self._best[2:], strict=True)]
