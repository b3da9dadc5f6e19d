"""``torchaudio.models.decoder.ctc_decoder``."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrkern._lengths import Lengths, as_lengths
from asrkern.decoder._context import finite, spellings_of
from asrkern.decoder._files import about
from asrkern.decoder._tokens import read_tokens
from asrkern.decoder.beam import CTCBeamDecoder, Hypothesis, _count
from asrkern.decoder.compat._callback_lm import CallbackDecoder, CallbackOptions, CTCDecoderLM
from asrkern.decoder.compat._names import renamed
from asrkern.decoder.labels import fields
from asrkern.decoder.ngram_lm import NGramLM

_LN10 = math.log(10)
_NAMES = {"labels": "tokens", "blank": "blank_token", "space": "sil_token", "log_probs": "emissions"}
_NAMES |= {
    "alpha": "lm_weight",
    "beta": "word_score",
    "beam_width": "beam_size",
    "top_tokens": "beam_size_token",
}


class CTCHypothesis(NamedTuple):
    """One hypothesis, with torchaudio's fields.

    tokens: [L] int64, with ``sil_token`` at both ends; words: of the lexicon, empty without one; score; timesteps: [L]
    int32, where each token begins: 0 is before the first frame, t + 1 is frame t.
    """

    tokens: Tensor
    words: list[str]
    score: float
    timesteps: Tensor


class _BeamDecoder(CTCBeamDecoder):
    """A decoder whose hypotheses come with the end of their last token."""

    def _hypothesis(self, *values: Any) -> Any:
        return super()._hypothesis(*values), values[-1]


class _TokenBeamDecoder(_BeamDecoder):
    """A decoder without lexicon: its results are sequences of tokens, not texts."""

    _joins_texts = False


class CTCDecoder:
    """torchaudio's decoder with its methods; :func:`ctc_decoder` makes it.

    Args:
        decoder: the search, whose hypotheses come with the end of their last token.
        names: of the tokens.
        sil: the index of the silence; None: there is none.
        sil_score: added to the silence's scores in each frame.
        unk_word: what a word without text is called; None: there are no words.
    """

    def __init__(
        self,
        decoder: CTCBeamDecoder | CallbackDecoder,
        names: list[str],
        sil: int | None,
        sil_score: float,
        unk_word: str | None,
    ) -> None:
        self._decoder, self._names = decoder, names
        self._sil, self._sil_score, self._unk_word = sil, sil_score, unk_word
        self._state: Any = None

    @renamed(**_NAMES)
    def __call__(self, emissions: Tensor, lengths: Lengths | None = None) -> list[list[CTCHypothesis]]:
        """The n-best of each row.

        Args:
            emissions: [N, T, V] float32 on the CPU: log-probabilities or any scores of frames.
            lengths: [N] frames of each row; None: all T.
        """
        emissions = self._scored(emissions, 3)
        lengths = as_lengths("lengths", lengths, len(emissions))
        found = self._decoder.decode(emissions, lengths)
        frames = [emissions.shape[1]] * len(emissions) if lengths is None else lengths.tolist()
        return [[self._convert(h, t) for h in hypotheses] for hypotheses, t in zip(found, frames)]

    def decode_begin(self) -> None:
        """Start online decoding."""
        self._state = self._decoder.start()

    @renamed(**_NAMES)
    def decode_step(self, emissions: Tensor) -> None:
        """Take more frames.

        Args:
            emissions: [frames, V] float32 on the CPU.

        Raises:
            RuntimeError: decode_begin has not been called, or another shape or device.
            ValueError: another dtype or number of tokens, or NaN.
        """
        self._decoder.step(self._started(), self._scored(emissions, 2))

    def decode_end(self) -> None:
        """End online decoding; the result is :meth:`get_final_hypothesis`."""
        self._started()

    def get_final_hypothesis(self) -> list[CTCHypothesis]:
        """The n-best of the frames taken."""
        state = self._started()
        found: list[Any] = self._decoder.finish(state)
        return [self._convert(h, state.frames) for h in found]

    def idxs_to_tokens(self, idxs: Tensor) -> list[str]:
        """The names of tokens.

        Args:
            idxs: [L] their indices.
        """
        return [self._names[index] for index in idxs.tolist()]

    def _started(self) -> Any:
        if self._state is None:
            raise RuntimeError("decode_begin has not been called")
        return self._state

    def _scored(self, emissions: Tensor, dims: int) -> Tensor:
        if not isinstance(emissions, Tensor) or emissions.dtype != torch.float32:
            raise ValueError("emissions must be float32.")
        if not emissions.is_cpu:
            raise RuntimeError("emissions must be a CPU tensor.")
        if emissions.ndim != dims:
            raise RuntimeError(f"emissions must be {dims}D. Found {emissions.shape}")
        if self._sil is None or self._sil_score == 0:
            return emissions
        emissions = emissions.clone()
        emissions[..., self._sil] += self._sil_score
        return emissions

    def _convert(self, found: tuple[Hypothesis, int], frames: int) -> CTCHypothesis:
        best, end = found
        tokens, starts = list(best.tokens), [start + 1 for start in best.timesteps]
        if self._sil is not None:
            # The path has a silence before the first frame and one after the last; neighbouring silences are one with
            # it.
            if tokens[-1:] != [self._sil] or end < frames:
                tokens, starts = [*tokens, self._sil], [*starts, frames + 1]
            if tokens[0] != self._sil or starts[0] > 1:
                tokens, starts = [self._sil, *tokens], [0, *starts]
            starts[0] = 0
        words = [] if self._unk_word is None else [word.text or self._unk_word for word in best.words]
        return CTCHypothesis(torch.tensor(tokens), words, best.score, torch.tensor(starts, dtype=torch.int32))


def _read_tokens(tokens: str | os.PathLike[str] | Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Each name's index, and the first name of each index; a file's line may have several names of one index, or a
    name and its index."""
    if isinstance(tokens, (str, os.PathLike)):
        lines: list[Any] = [line for line in map(fields, _read_lines(tokens)) if line]
        numbers = {line[1]: line[:1] for line in lines if len(line) == 2}
        in_order = [numbers.get(str(index)) for index in range(len(lines))]
        lines = in_order if all(in_order) else lines
    else:
        lines = [[token] for token in tokens]
    if not lines:
        raise ValueError("tokens: expected at least one, received none")
    return {name: index for index, names in enumerate(lines) for name in names}, [names[0] for names in lines]


def _read_lines(path: str | os.PathLike[str]) -> list[str]:
    with about(path):
        return Path(path).read_text(encoding="utf-8-sig").split("\n")


def _read_lexicon(
    path: str | os.PathLike[str], tokens: dict[str, int], names: list[str]
) -> dict[str, list[list[str]]]:
    lexicon: dict[str, list[list[str]]] = {}
    for number, line in enumerate(_read_lines(path), 1):
        if not fields(line):
            continue
        word, *spelling = fields(line)
        if not spelling:
            raise ValueError(
                f"lexicon: expected a word and its spelling in line {number} of {path}, received {line!r}"
            )
        for token in spelling:
            if token not in tokens:
                raise ValueError(f"lexicon: {token!r} in line {number} of {path} is not in tokens")
        lexicon.setdefault(word, []).append([names[tokens[token]] for token in spelling])
    return lexicon


def _lm_words(words: Iterable[str], lm_dict: str | os.PathLike[str] | None, unk_word: str) -> list[int]:
    """The index of each word in a CTCDecoderLM, and last the unknown word's."""
    if lm_dict is None:
        return list(range(len([*words]) + 1))
    index: dict[str, int] = {}
    for line in filter(None, map(fields, _read_lines(lm_dict))):
        index.setdefault(line[0], len(index))
    for word in (*words, unk_word):
        if word not in index:
            raise ValueError(f"lm_dict: expected all words of lexicon and unk_word, {lm_dict} lacks {word!r}")
    return [index[word] for word in (*words, unk_word)]


@renamed(**_NAMES)
def ctc_decoder(
    lexicon: str | os.PathLike[str] | None,
    tokens: str | os.PathLike[str] | Sequence[str],
    lm: str | os.PathLike[str] | NGramLM | CTCDecoderLM | None = None,
    lm_dict: str | None = None,
    nbest: int = 1,
    beam_size: int = 50,
    beam_size_token: int | None = None,
    beam_threshold: float = 50,
    lm_weight: float = 2,
    word_score: float = 0,
    unk_score: float = -math.inf,
    sil_score: float = 0,
    log_add: bool = False,
    blank_token: str = "-",
    sil_token: str = "|",
    unk_word: str = "<unk>",
) -> CTCDecoder:
    """``torchaudio.models.decoder.ctc_decoder``; arguments as there.

    Where results differ from flashlight-text's, which torchaudio calls, says ``docs/decoder.md``.

    Args:
        lexicon: file of words and their spellings, a line each: ends in ``sil_token``, or begins with a token that
            begins with "▁". None: words are not known.
        tokens: names, or a file of them.
        lm: file of a word model (ARPA, KenLM, :meth:`asrkern.decoder.NGramLM.save`), or an NGramLM; without lexicon a model of
            tokens.
            Or a :class:`CTCDecoderLM`, which is asked in Python: much slower.
        lm_dict: file of a CTCDecoderLM's words in the order of their indices, ``unk_word`` among them. None: they are
            numbered as in the lexicon, and ``unk_word`` comes last.
        nbest: hypotheses returned, at most beam_size.
        beam_size: prefixes kept at each frame.
        beam_size_token: only so many of the likeliest tokens of a frame are possible; None: all.
        beam_threshold: prefixes whose score is further than this below the best are dropped; ≥ 0.
        lm_weight: multiplies log10 probabilities, or a CTCDecoderLM's scores; ≥ 0.
        word_score: added for each word.
        unk_score: added for each unknown word, in place of word_score; −inf: they are not allowed.
        sil_score: added to the silence's scores in each frame.
        log_add: alignments are summed; else the best one counts.
        blank_token, sil_token: the names of the blank and of the silence, which stands between words.
        unk_word: the unknown word's name in ``lm_dict``.

    Raises:
        ValueError: an argument that is not supported or out of its range.
    """
    own = isinstance(lm, CTCDecoderLM)
    if lm_dict is not None and (not own or lexicon is None):
        raise ValueError(
            "lm_dict: not supported but with a CTCDecoderLM and a lexicon; the words are those of lexicon"
        )
    if lm is not None and not own and not isinstance(lm, (str, os.PathLike, NGramLM)):
        raise ValueError(
            f"lm: {type(lm).__name__} is not supported; expected a file, an NGramLM or a CTCDecoderLM"
        )
    nbest, beam_size = _count("nbest", nbest), _count("beam_size", beam_size)
    lm_weight, word_score = finite("lm_weight", lm_weight, least=0.0), finite("word_score", word_score)
    sil_score = finite("sil_score", sil_score)
    if unk_score != -math.inf:
        finite("unk_score", unk_score)
    if not isinstance(beam_threshold, Real) or not beam_threshold >= 0:
        raise ValueError(f"beam_threshold: expected a number of at least 0, received {beam_threshold!r}")
    indices, names = _read_tokens(tokens)
    if blank_token not in indices:
        raise ValueError(f"blank_token: expected one of tokens, received {blank_token!r}")
    if lexicon is not None and sil_token not in indices:
        raise ValueError(f"sil_token: expected one of tokens, received {sil_token!r}")
    sil = indices.get(sil_token)
    words = None if lexicon is None else _read_lexicon(lexicon, indices, names)
    if lm is not None and not own and not isinstance(lm, NGramLM):
        lm = NGramLM.open(lm) if words is not None else NGramLM.open(lm, unit="character", space=sil_token)
    marked = words is not None and not all(
        spelling[-1] == names[sil] for spellings in words.values() for spelling in spellings
    )
    space = None if marked or sil is None else names[sil]
    if own:
        kinds = read_tokens(names, indices[blank_token], space, words is not None)
        decoder = CallbackDecoder(
            lm, kinds, None if words is None else spellings_of(words, kinds),
            [] if words is None else _lm_words(words, lm_dict, unk_word),
            CallbackOptions(
                nbest, beam_size, min(beam_size_token or len(names), len(names)), float(beam_threshold), lm_weight,
                word_score, unk_score, log_add,
            ),
        )  # fmt: skip
        return CTCDecoder(decoder, names, sil, sil_score, None if words is None else unk_word)
    decoder = (_TokenBeamDecoder if words is None else _BeamDecoder)(
        names,
        lm,
        words,
        alpha=lm_weight / _LN10,  # flashlight weighs log10 probabilities
        beta=word_score if words is not None else 0.0,
        beam_width=beam_size,
        nbest=min(nbest, beam_size),
        top_tokens=None if not beam_size_token else min(beam_size_token, len(names)),
        beam_prune_logp=-float(beam_threshold),
        blank=indices[blank_token],
        space=space,
        # There unk_score replaces word_score.
        unk_score=0.0 if words is None else unk_score - word_score,
        log_add=log_add,
        check_normalized=False,
    )
    return CTCDecoder(decoder, names, sil, sil_score, None if words is None else unk_word)
