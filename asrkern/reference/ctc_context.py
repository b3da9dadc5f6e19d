"""What words, a language model and hotwords add to a prefix of tokens, from its text alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from asrkern.reference.ctc_beam_search import Context, Prefix

INSIDE_WORD, ENDS_WORD, BEGINS_WORD = 0, 1, 2


class Text(NamedTuple):
    """complete: words that something has ended; partial: the letters after them, "" between words."""

    complete: list[str]
    partial: str


def read_text(tokens: Prefix, kinds: Sequence[int], texts: Sequence[str]) -> Text:
    """Words of tokens by their kinds and texts (:func:`asrkern.decoder._tokens.read_tokens`)."""
    complete, partial = [], ""
    for token in tokens:
        if kinds[token] != INSIDE_WORD:
            complete += [partial] * bool(partial)
            partial = ""
        partial += texts[token]
    return Text(complete, partial)


def hotword_score(text: Text, hotwords: Mapping[str, float], final: bool) -> float:
    """Weights of all occurrences as whole words; and the share that is there of a phrase that may be going on."""
    words = [*text.complete, *[text.partial] * bool(final and text.partial)]
    score = sum(
        weight
        for phrase, weight in hotwords.items()
        for i in range(len(words))
        if " ".join(words[i : i + len(phrase.split())]) == phrase
    )
    if final:
        return score
    started = [*text.complete, text.partial]
    for i in range(len(started)):
        begun = " ".join(started[i:])
        phrases = [phrase for phrase in hotwords if begun and phrase.startswith(begun)]
        if phrases:
            shortest = min(phrases, key=len)
            return score + hotwords[shortest] * len(begun) / len(shortest)
    return score


def word_context(
    kinds: Sequence[int],
    texts: Sequence[str],
    *,
    lexicon: Sequence[str] | None = None,
    log_prob: Callable[[Sequence[str]], float] | None = None,
    unigram: Callable[[str], float] | None = None,
    end_log_prob: Callable[[Sequence[str]], float] | None = None,
    beta: float = 0.0,
    unk_score: float = -math.inf,
    hotwords: Mapping[str, float] | None = None,
    smearing: bool = False,
) -> Context:
    """Reference of what :class:`asrkern.ops.CTCContext` adds, for a language model of words.

    Args:
        lexicon: the words; None: all words, none of which is unknown.
        log_prob: ``alpha · ln P`` of a sequence of words at the beginning of a sentence; unknown words in it are
            ``"<unk>"``.
        end_log_prob: the same of the sentence's end after them.
        unigram: the same of one word on its own, for smearing.
    """

    def known(word: str) -> bool:
        return lexicon is None or word in lexicon

    def expected(partial: str) -> float:
        if lexicon is None or not partial:
            return 0.0
        ways = [word for word in lexicon if word.startswith(partial)]
        if not smearing:
            return 0.0 if ways else unk_score
        score = unigram or (lambda word: 0.0)
        return max((score(w) + beta for w in ways), default=unk_score + score("<unk>") + beta)

    def context(tokens: Prefix, final: bool) -> float:
        text = read_text(tokens, kinds, texts)
        words = [*text.complete, *[text.partial] * bool(final and text.partial)]
        score = beta * len(words) + sum(unk_score for word in words if not known(word))
        if log_prob is not None:
            score += log_prob([word if known(word) else "<unk>" for word in words])
        if final and end_log_prob is not None:
            score += end_log_prob([word if known(word) else "<unk>" for word in words])
        if not final:
            score += expected(text.partial)
        return score + hotword_score(text, hotwords or {}, final)

    return context
