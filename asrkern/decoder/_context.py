"""Labels, words, a language model and hotwords as the tensors that the beam search takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch

from asrkern import _decoder
from asrkern.decoder._lm_words import (
    check_case,
    check_unit,
    ids_of_words,
    known_words,
    token_ids,
    unit_of,
)
from asrkern.decoder._tokens import BEGINS_WORD, ENDS_WORD, INSIDE_WORD, Tokens, read_tokens, utf8
from asrkern.decoder._warn import warn
from asrkern.decoder.ngram_lm import NGramLM
from asrkern.ops.ctc_beam_search import CTCContext

# What files of language models separate words by. Other kinds of space may be letters there.
_WHITE_SPACE = frozenset(" \t\n\v\f\r\0")
_EDGES = ("edge_begin", "edge_token", "edge_target", "edge_mask")
_IMPOSSIBLE = -1e30
_LN10 = math.log(10)

# Words; or a mapping of words to their spellings, which are sequences of labels.
Lexicon = Iterable[str] | Mapping[str, Iterable[Sequence[str]]]


def _flat(texts: Iterable[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of numbers joined to one array, and where each begins in it."""
    arrays = [np.asarray(text, np.uint32) for text in texts]
    begin = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(a) for a in arrays], out=begin[1:])
    return np.concatenate([*arrays, np.zeros(0, np.uint32)]), begin


def _symbols(texts: Sequence[str], tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Texts as numbers, joined, and where each begins: code points; where tokens have bytes of letters, bytes."""
    if tokens.has_bytes:
        return _flat(list(utf8(text)) for text in texts)
    begin = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=begin[1:])
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32), begin


def _letters_without_label(text: str, tokens: Tokens) -> str:
    spelled = set("".join(tokens.texts)) - {"\0"}  # stands for blank
    return ", ".join(repr(letter) for letter in dict.fromkeys(text) if letter not in spelled)


def spellings_of(
    lexicon: Mapping[str, Iterable[Sequence[str]]], tokens: Tokens
) -> dict[str, list[list[int]]]:
    """Spellings as indices of :func:`_first_index`, without marks of words and without spaces at their ends."""
    index_of = _first_index(tokens)
    result: dict[str, list[list[int]]] = {}
    for word, spellings in lexicon.items():
        if not isinstance(word, str) or not word:
            raise ValueError(f"lexicon: expected words, received {word!r}")
        result[word] = []
        for spelling in spellings:
            if isinstance(spelling, str):
                raise TypeError(
                    f"lexicon: expected spellings as lists of labels, received {spelling!r} for {word!r}"
                )
            for label in spelling:
                if label not in index_of:
                    reason = "blank" if label == tokens.labels[tokens.blank] else "no label"
                    raise ValueError(f"lexicon: the spelling of {word!r} has {label!r}, which is {reason}")
            indices = [index_of[label] for label in spelling]
            while indices and tokens.kinds[indices[-1]] == ENDS_WORD:
                indices.pop()
            if not indices:
                raise ValueError(f"lexicon: expected a spelling of {word!r}, received {list(spelling)!r}")
            if any(tokens.kinds[i] != INSIDE_WORD for i in indices[1:]) or (
                BEGINS_WORD in tokens.kinds and tokens.kinds[indices[0]] == INSIDE_WORD
            ):
                raise ValueError(
                    f"lexicon: expected labels of one word, a space at most at its end, received {list(spelling)!r} "
                    f"for {word!r}"
                )
            result[word].append(indices)
    return result


def _first_index(tokens: Tokens) -> dict[str, int]:
    """Label → the first token that has it; without blank."""
    indices = range(len(tokens.labels) - 1, -1, -1)
    return {tokens.labels[index]: index for index in indices if index != tokens.blank}


class _Words(NamedTuple):
    """A lexicon's graph (``kernels/ctc/trie_builder.h``) and its words."""

    graph: dict[str, np.ndarray]
    words: list[str]


def _lexicon_graph(lexicon: Lexicon, tokens: Tokens, *, known_to_lm: bool) -> _Words:
    """known_to_lm: the words are a language model's, so words that the labels cannot spell are left out."""
    kinds = np.asarray(tokens.kinds, np.uint8)
    if isinstance(lexicon, Mapping):
        spellings = spellings_of(lexicon, tokens)
        words = list(spellings)
        word_of = [i for i, word in enumerate(words) for _ in spellings[word]]
        symbols = _flat(spelling for word in words for spelling in spellings[word])
        # If several tokens have a label, each of them spells it.
        first = _first_index(tokens)
        token_symbols = _flat(
            [index if index == tokens.blank else first[label]] for index, label in enumerate(tokens.labels)
        )
    else:
        if isinstance(lexicon, str):
            raise TypeError(f"lexicon: expected words, received a string, {lexicon!r}")
        words = list(dict.fromkeys(lexicon))
        for word in words:
            if not isinstance(word, str):
                raise TypeError(f"lexicon: expected words as strings, received {type(word).__name__}")
            if not word or not _WHITE_SPACE.isdisjoint(word):
                raise ValueError(f"lexicon: expected words without white space, received {word!r}")
        word_of = range(len(words))
        symbols, token_symbols = _symbols(words, tokens), _symbols(tokens.texts, tokens)
    if not words:
        raise ValueError("lexicon: expected at least one word, received none")
    graph = _decoder.lexicon_graph(*symbols, np.asarray(word_of, np.int32), len(words), *token_symbols, kinds)
    missing = np.flatnonzero(graph["spelled"] == 0)
    if len(missing) and not known_to_lm:
        word = words[missing[0]]
        letters = _letters_without_label(word, tokens)
        reason = f"no label for {letters}" if letters else "no sequence of labels that spells it"
        raise ValueError(f"lexicon: {word!r} has {reason} ({len(missing)} such words)")
    return _Words(graph, words)


class Hotwords:
    """The automata of lists of hotwords, spelled by a decoder's labels. The last lists are kept."""

    _KEPT = 4096

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._builder: _decoder.HotwordBuilder | None = None
        self._automata: dict[tuple[tuple[str, float], ...], tuple[np.ndarray, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_tokens": self._tokens}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Hotwords.__init__(self, state["_tokens"])

    def automaton(
        self, hotwords: Iterable[str] | Mapping[str, float] | None, weight: float
    ) -> tuple[np.ndarray, ...]:
        """The arrays of :attr:`CTCContext.hotwords`; none for no hotwords.

        Raises:
            TypeError, ValueError: as :class:`asrkern.decoder.CTCBeamDecoder`.
        """
        weight = finite("hotword_weight", weight)
        if isinstance(hotwords, str):
            raise TypeError(f"hotwords: expected a list of words or phrases, received a string, {hotwords!r}")
        if hotwords is not None and not isinstance(hotwords, Iterable):
            raise TypeError(f"hotwords: expected a list of words or phrases, received {hotwords!r}")
        weights = hotwords if isinstance(hotwords, Mapping) else dict.fromkeys(hotwords or (), weight)
        key = tuple(weights.items())
        if not key:
            return ()
        if key not in self._automata:
            built = self._build(weights)
            if len(self._automata) >= self._KEPT:
                self._automata.clear()
            self._automata[key] = built
        return self._automata[key]

    def _build(self, weights: Mapping[str, float]) -> tuple[np.ndarray, ...]:
        phrases: dict[str, float] = {}
        for phrase, value in weights.items():
            if not isinstance(phrase, str) or not phrase.split():
                raise ValueError(f"hotwords: expected words or phrases, received {phrase!r}")
            normal = " ".join(phrase.split())
            if normal in phrases:
                raise ValueError(f"hotwords: expected each phrase once, received {normal!r} twice")
            phrases[normal] = finite(f"hotwords: the weight of {phrase!r}", value)
            if not self._tokens.has_bytes and not self._letters.issuperset(normal):
                letters = _letters_without_label(normal.replace(" ", ""), self._tokens)
                raise ValueError(f"hotwords: {phrase!r} has no label for {letters}")
        if self._builder is None:
            _warn_of_several_words(
                self._tokens, "hotwords that begin or end inside of them may not be counted"
            )
            kinds = np.asarray(self._tokens.kinds, np.uint8)
            self._builder = _decoder.HotwordBuilder(*_symbols(self._tokens.texts, self._tokens), kinds)
        return self._builder.build(
            *_symbols(list(phrases), self._tokens), np.asarray(list(phrases.values()), np.float32)
        )

    @cached_property
    def _letters(self) -> frozenset[str]:
        """What phrases may have: the labels' letters and spaces."""
        return frozenset("".join(self._tokens.texts)) - {"\0"} | {" "}


def _best_target(graph: dict[str, np.ndarray], values: np.ndarray, least: float) -> np.ndarray:
    """For each node the largest value among the targets of its edges, at least ``least``."""
    begin = graph["edge_begin"]
    best = np.full(len(begin) - 1, least, np.float32)
    with_edges = np.flatnonzero(begin[:-1] < begin[1:])
    if len(with_edges):
        found = np.maximum.reduceat(values[graph["edge_target"]], begin[:-1][with_edges])
        best[with_edges] = np.maximum(best[with_edges], found)
    return best


def finite(name: str, value: float, *, least: float = -math.inf) -> float:
    # float32 holds it, and it is far from the score of what is impossible.
    if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) < 1e20 or value < least:
        at_least = "" if math.isinf(least) else f" of at least {least}"
        raise ValueError(f"{name}: expected a finite number{at_least}, received {value!r}")
    return float(value)


def _warn_of_several_words(tokens: Tokens, consequence: str) -> None:
    several = [label for label, text in zip(tokens.labels, tokens.texts) if text.strip() and " " in text]
    if several:
        warn(
            f"labels: {len(several)} of {len(tokens.labels)} hold parts of several words, such as {several[0]!r}: "
            f"{consequence}"
        )


def _each_a_label(lexicon: Lexicon, labels: list[str]) -> bool:
    if isinstance(lexicon, Mapping):
        return all(len(spelling) == 1 for spellings in lexicon.values() for spelling in spellings)
    return set(lexicon) <= set(labels)


class Built(NamedTuple):
    """context: tensors, without hotwords; tokens: what each label does; words: of the lexicon, by index; hotwords: makes
    their automata."""

    context: CTCContext
    tokens: Tokens
    words: list[str]
    hotwords: Hotwords

    def with_hotwords(self, automaton: tuple[np.ndarray, ...]) -> CTCContext:
        """The context with hotwords, of :meth:`Hotwords.automaton`. It shares all other tensors."""
        if not automaton:
            return self.context
        _, edge_token, edge_target, _, credit, *_ = automaton
        at_boundary = np.asarray(self.tokens.kinds)[edge_token] != INSIDE_WORD
        most = max(0.0, float(credit[edge_target[at_boundary]].max(initial=0.0)))
        tensors = tuple(map(torch.from_numpy, automaton))
        return self.context._replace(hotwords=tensors, begin_reach=self.context.begin_reach + most)


def build_context(
    labels: Sequence[str],
    lm: NGramLM | None = None,
    lexicon: Lexicon | None = None,
    *,
    alpha: float = 0.5,
    beta: float = 0.0,
    blank: int | None = None,
    space: str | None = None,
    unit: str | None = None,
    lm_token_offset: int | None = None,
    lm_case: str | None = None,
    unk_score: float = -math.inf,
    smearing: bool = True,
) -> Built:
    """The tensors of a decoder. Arguments and errors: as :class:`asrkern.decoder.CTCBeamDecoder`."""
    alpha, beta = finite("alpha", alpha, least=0.0), finite("beta", beta)
    unk_score = unk_score if unk_score == -math.inf else finite("unk_score", unk_score)
    check_case(lm_case)
    check_unit(unit, lm_token_offset)
    if lm is not None and not isinstance(lm, NGramLM):
        raise TypeError(f"lm: expected an NGramLM, received {type(lm).__name__}")
    if lexicon is not None and not isinstance(lexicon, Mapping):
        lexicon = list(lexicon) if not isinstance(lexicon, str) else lexicon
    labels = list(labels)
    tokens = read_tokens(labels, blank, space, lexicon is not None and not _each_a_label(lexicon, labels))

    unit = None if lm is None else unit_of(lm, tokens, unit, lm_token_offset)
    of_words = unit == "word"
    kinds = np.asarray(tokens.kinds, np.uint8)
    context = CTCContext(torch.from_numpy(kinds), alpha=alpha, beta=beta)
    if lm is not None:
        tables = tuple(
            lm.tensors[name].cpu()
            for name in ("unigrams", "ngrams", "codebook", "trie", "trie_shape")
            if name in lm.tensors
        )
        context = context._replace(language_model=tables, lm_order=lm.order, lm_bos=lm.bos, lm_eos=lm.eos)
        if unit is not None and not of_words:
            ids = token_ids(lm, tokens, lm_case, unit, lm_token_offset)
            context = context._replace(lm_tokens=torch.tensor(ids, dtype=torch.int32))

    begin_reach = 0.0
    words: list[str] = []
    if lexicon is not None or of_words:
        _warn_of_several_words(
            tokens,
            "no lexicon and no model of words has them, so they are never found; a model of tokens (unit='token') does",
        )
        word_ids: dict[str, int] = {}
        if lexicon is None:
            assert lm is not None  # of words
            word_ids = known_words(lm, tokens, lm_case)
            graph, words = _lexicon_graph(list(word_ids), tokens, known_to_lm=True)
            if not graph["spelled"].any():
                raise ValueError("lm: expected a model of words that the labels spell, received one without")
        else:
            graph, words = _lexicon_graph(lexicon, tokens, known_to_lm=False)
            if lm is not None and of_words:
                word_ids = ids_of_words(lm, words, lm_case)
        allow_unknown = unk_score > -math.inf
        lm_words = np.asarray([word_ids[word] if of_words else 0 for word in words], np.int32)
        unknown = unk_score if allow_unknown else 0.0
        nodes = len(graph["edge_begin"]) - 1
        look_ahead = np.zeros(nodes, np.float32)
        if smearing and (of_words or beta):
            unigrams = (
                -lm.tensors["unigrams"][:, 0].cpu().numpy().__abs__()
                if lm is not None and of_words
                else np.zeros(1, np.float32)
            )
            scores = alpha * _LN10 * unigrams[lm_words] + beta if of_words else np.full(len(words), beta)
            look_ahead = _decoder.best_word_below(
                graph["parent"], graph["word_begin"], graph["words"], scores.astype(np.float32)
            )
            look_ahead[0] = 0
            unknown += (alpha * _LN10 * float(unigrams[0]) if of_words else 0.0) + beta
        reach = _best_target(graph, look_ahead, unknown if allow_unknown else _IMPOSSIBLE)
        arrays = (*(graph[name] for name in (*_EDGES, "word_begin", "words")), lm_words, look_ahead, reach)
        context = context._replace(
            lexicon=tuple(map(torch.from_numpy, arrays)),
            unk_score=unk_score if allow_unknown else None,
            unknown_look_ahead=unknown,
        )
        begin_reach = max(0.0, float(reach[0]))
    texts = _decoder.text_hashes(*_symbols([tokens.joiner, *tokens.texts, *words], tokens))
    context = context._replace(begin_reach=begin_reach, texts=torch.from_numpy(texts))
    return Built(context, tokens, words, Hotwords(tokens))
