"""``pyctcdecode.build_ctcdecoder``."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from asrkern.decoder._context import finite
from asrkern.decoder._tokens import find_space
from asrkern.decoder.beam import CTCBeamDecoder, Hypothesis
from asrkern.decoder.compat._names import renamed
from asrkern.decoder.ngram_lm import NGramLM

_LN10 = math.log(10)
_LEAST_P = 1e-15
_DECODERS_KEPT = 16
_MARK = "▁"
_NAMES = {"lm": "kenlm_model_path", "lexicon": "unigrams", "nbest": "beam_width", "log_probs": "logits"}
# text, None, [(word, (start, end))], acoustic score, combined score
Beam = tuple[str, None, list[tuple[str, tuple[int, int]]], float, float]


def _normalize_labels(labels: Sequence[str]) -> list[str]:
    """As pyctcdecode: "" is blank ("[PAD]", else "_", else appended), " " stands for "|", "##" and "▁" mean BPE."""
    labels = list(labels)
    if not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels: expected strings, received {labels!r:.80}")
    wordpieces = any(label.startswith("##") for label in labels)
    marked = wordpieces or any(label.startswith(_MARK) for label in labels)
    if wordpieces:
        special = re.compile(r"^[<\[].+[>\]]$")
        labels = [
            label[2:]
            if label.startswith("##")
            else label
            if special.match(label) or not label
            else _MARK + label
            for label in labels
        ]
    labels = ["" if re.match(r"^[<\[]pad[>\]]$", label, re.IGNORECASE) else label for label in labels]
    if not marked and "" not in labels:
        labels = ["" if label == "_" else label for label in labels]
    if not marked and find_space(list(filter(None, labels))) == "|":
        labels = [" " if label == "|" else label for label in labels]
    if "" not in labels:
        labels.append("")
    unknown = f"{_MARK}⁇{_MARK}" if marked else "⁇"
    return [unknown if re.match(r"^[<\[]unk[>\]]$", label, re.IGNORECASE) else label for label in labels]


class BeamSearchDecoderCTC:
    """pyctcdecode's decoder with its methods; :func:`build_ctcdecoder` makes it."""

    def __init__(
        self,
        labels: list[str],
        language_model: NGramLM | None,
        unigrams: Collection[str] | None,
        alpha: float,
        beta: float,
        unk_score_offset: float,
    ) -> None:
        self._labels, self._lm, self._unigrams = labels, language_model, unigrams
        self._blanks = [index for index, label in enumerate(labels) if not label]
        self._build({"alpha": alpha, "beta": beta, "unk_score_offset": unk_score_offset})

    def reset_params(
        self,
        alpha: float | None = None,
        beta: float | None = None,
        unk_score_offset: float | None = None,
        lm_score_boundary: bool | None = None,
    ) -> None:
        """Change parameters of the language model."""
        _refuse("lm_score_boundary", lm_score_boundary, None, True)
        new = {"alpha": alpha, "beta": beta, "unk_score_offset": unk_score_offset}
        self._build({**self._parameters, **{name: value for name, value in new.items() if value is not None}})

    def decode(
        self,
        logits: np.ndarray,
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
        lm_start_state: None = None,
    ) -> str:
        """The text of log-probabilities, logits or probabilities [T, V]."""
        return self.decode_beams(
            logits,
            beam_width,
            beam_prune_logp,
            token_min_logp,
            False,
            hotwords,
            hotword_weight,
            lm_start_state,
        )[0][0]

    @renamed(**_NAMES)
    def decode_beams(
        self,
        logits: np.ndarray,
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        prune_history: bool = False,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
        lm_start_state: None = None,
    ) -> list[Beam]:
        """(text, None, [(word, (start, end))], acoustic score, combined score) of each beam, the best first."""
        _refuse("prune_history", prune_history, False)
        _refuse("lm_start_state", lm_start_state, None)
        decoder = self._decoder(
            beam_width, beam_prune_logp, token_min_logp, tuple(self._words(hotwords)), hotword_weight
        )
        return _beams(decoder.decode(self._log_probs(logits)), beam_prune_logp)

    def decode_batch(
        self, pool: Any, logits_list: Sequence[np.ndarray], *args: Any, **kwargs: Any
    ) -> list[str]:
        """:meth:`decode` of each. ``pool`` is not used: no processes are needed."""
        return [self.decode(logits, *args, **kwargs) for logits in logits_list]

    def decode_beams_batch(
        self, pool: Any, logits_list: Sequence[np.ndarray], *args: Any, **kwargs: Any
    ) -> list[list[tuple[str, list[tuple[str, tuple[int, int]]], float, float]]]:
        """:meth:`decode_beams` of each, without the second field; ``pool`` is not used."""
        return [
            [
                (text, frames, am, score)
                for text, _, frames, am, score in self.decode_beams(logits, *args, **kwargs)
            ]
            for logits in logits_list
        ]

    @renamed(**_NAMES)
    def _build(self, parameters: dict[str, float]) -> None:
        alpha, beta, offset = (finite(name, value) for name, value in parameters.items())
        lexicon = None
        if self._lm is not None and self._unigrams is not None:
            spelled = set("".join(self._labels)) - {_MARK}
            lexicon = [
                w for w in dict.fromkeys(self._unigrams) if self._lm.word_id(w) and spelled.issuperset(w)
            ]
        self._base = CTCBeamDecoder(
            self._labels,
            self._lm,
            lexicon or None,
            alpha=alpha,
            beta=beta if self._lm is not None else 0.0,
            blank=self._blanks[0],
            unk_score=alpha * _LN10 * offset,
            check_normalized=False,
        )
        self._parameters = parameters
        self._decoders: dict[tuple[Any, ...], CTCBeamDecoder] = {}

    def _decoder(
        self, beam_width: int, prune: float, least: float, hotwords: tuple[str, ...], weight: float
    ) -> CTCBeamDecoder:
        options = (beam_width, prune, least, hotwords, weight)
        if options not in self._decoders:
            if len(self._decoders) >= _DECODERS_KEPT:
                self._decoders.clear()
            self._decoders[options] = self._base.replace(
                beam_width=beam_width, nbest=beam_width, beam_prune_logp=prune, token_min_logp=least,
                hotwords=hotwords, hotword_weight=weight,
            )  # fmt: skip
        return self._decoders[options]

    def _words(self, hotwords: Iterable[str] | None) -> list[str]:
        """All words of the phrases: pyctcdecode takes each on its own. Words that no labels spell do nothing."""
        if isinstance(hotwords, str):
            raise TypeError(f"hotwords: expected a list of words or phrases, received a string, {hotwords!r}")
        spelled = set("".join(self._labels))
        words = dict.fromkeys(word for phrase in hotwords or () for word in phrase.split())
        return [word for word in words if spelled.issuperset(word)]

    def _log_probs(self, logits: np.ndarray) -> np.ndarray:
        if logits.ndim != 2 or logits.shape[1] != len(self._labels):
            raise ValueError(
                f"logits: expected shape (time, {len(self._labels)}), one value for each label, received {logits.shape}"
            )
        logits = np.asarray(logits, np.float32)
        if len(logits) and logits.min() >= 0 and np.allclose(logits.sum(axis=1), 1, atol=1e-3):
            log_probs = np.log(np.clip(logits, _LEAST_P, 1))
        else:
            logits = logits - logits.max(axis=1, keepdims=True)
            logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            log_probs = np.clip(logits, math.log(_LEAST_P), 0)
        blank, *others = self._blanks
        for other in others:
            log_probs[:, blank] = np.logaddexp(log_probs[:, blank], log_probs[:, other])
            log_probs[:, other] = -np.inf
        return log_probs


def _refuse(name: str, value: object, *allowed: object) -> None:
    if not any(value is a for a in allowed):
        raise ValueError(f"{name}: {value!r} is not supported; expected {allowed[-1]!r}")


def _beams(found: list[Hypothesis], prune: float) -> list[Beam]:
    """The beams without those far below the best."""
    return [
        (h.text, None, [(word.text, (word.start, word.end)) for word in h.words], h.am_score, h.score)
        for h in found
        if h.score >= found[0].score + prune
    ]


def build_ctcdecoder(
    labels: Sequence[str],
    kenlm_model_path: str | os.PathLike[str] | NGramLM | None = None,
    unigrams: Collection[str] | None = None,
    alpha: float = 0.5,
    beta: float = 1.5,
    unk_score_offset: float = -10.0,
    lm_score_boundary: bool = True,
) -> BeamSearchDecoderCTC:
    """``pyctcdecode.build_ctcdecoder``. Arguments are as there, and the model may be any file that NGramLM opens.

    Differences from pyctcdecode:

    - A prefix that ends in a blank and one that ends in a token are one, in the sums and in the beam width.
    - Texts that differ in spaces only, "a b" and "a  b", are searched apart and become one at the end, with their
      probabilities added; there that happens in each frame.
    - A space at the end is no unknown word.
    - Words of the model that ``unigrams`` lacks score as ``<unk>``.
    - An unfinished word is expected to score as the best word that it can become; an unknown one whatever its length.
    - A label may be there twice. "|" is a space, but not among consecutive characters: NeMo writes subwords so.

    Raises:
        TypeError: labels or unigrams of another type.
        ValueError: an argument that is not supported or out of its range.
    """
    _refuse("lm_score_boundary", lm_score_boundary, True)
    lm = kenlm_model_path
    if lm is not None and not isinstance(lm, (str, os.PathLike, NGramLM)):
        raise ValueError(
            f"kenlm_model_path: {type(lm).__name__} is not supported; expected a file or an NGramLM"
        )
    if isinstance(unigrams, str):
        raise TypeError(f"unigrams: expected words, received a string, {unigrams!r:.80}")
    if lm is not None and not isinstance(lm, NGramLM):
        lm = NGramLM.open(lm)
    return BeamSearchDecoderCTC(_normalize_labels(labels), lm, unigrams, alpha, beta, unk_score_offset)
