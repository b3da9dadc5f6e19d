"""``pyctcdecode.decoder``: the decoder, its results and its directory."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from asrkern._decoder import NGramState
from asrkern._optional import require
from asrkern.decoder._files import about
from asrkern.decoder._scores import as_scores
from asrkern.decoder._tokens import WORD_MARK
from asrkern.decoder.beam import CTCBeamDecoder, Hypothesis, _count
from asrkern.decoder.compat._names import renamed
from asrkern.decoder.compat.pyctcdecode._search import search
from asrkern.decoder.compat.pyctcdecode.alphabet import Alphabet, verify_alphabet_coverage
from asrkern.decoder.compat.pyctcdecode.constants import (
    DEFAULT_ALPHA,
    DEFAULT_BEAM_WIDTH,
    DEFAULT_BETA,
    DEFAULT_HOTWORD_WEIGHT,
    DEFAULT_MIN_TOKEN_LOGP,
    DEFAULT_PRUNE_BEAMS,
    DEFAULT_PRUNE_LOGP,
    DEFAULT_SCORE_LM_BOUNDARY,
    DEFAULT_UNK_LOGP_OFFSET,
    LOG_BASE_CHANGE_FACTOR,
    MIN_TOKEN_CLIP_P,
)
from asrkern.decoder.compat.pyctcdecode.language_model import (
    AbstractLanguageModel,
    HotwordScorer,
    LanguageModel,
    words_of,
)
from asrkern.decoder.ngram_lm import NGramLM

_DECODERS_KEPT = 16
_NAMES = {"lm": "kenlm_model_path", "lexicon": "unigrams", "nbest": "beam_width", "log_probs": "logits"}
_NAMES |= {"lm_state": "lm_start_state"}

WordFrames = tuple[str, tuple[int, int]]


class OutputBeam(NamedTuple):
    """A text, and the tuple that pyctcdecode returns.

    text: the words; last_lm_state: the language model's state behind them, for ``lm_start_state`` of the next piece;
    text_frames: [(word, (start, end))] in frames; logit_score: log-probability by CTC; lm_score: that and the language
    model's and hotwords' score, in nats.
    """

    text: str
    last_lm_state: Any
    text_frames: list[WordFrames]
    logit_score: float
    lm_score: float


class OutputBeamMPSafe(NamedTuple):
    """:class:`OutputBeam` without the state, as batches return it: text, text_frames, logit_score, lm_score."""

    text: str
    text_frames: list[WordFrames]
    logit_score: float
    lm_score: float


class BeamSearchDecoderCTC:
    """pyctcdecode's decoder; :func:`build_ctcdecoder` says how its results differ.

    Args:
        alphabet: the labels.
        language_model: a :class:`~asrkern.decoder.compat.pyctcdecode.LanguageModel`, which :class:`asrkern.decoder.CTCBeamDecoder` searches with; any other
            AbstractLanguageModel is asked in Python, which is as slow as pyctcdecode. None: no model.
        parity: search in Python with all habits of pyctcdecode 0.5.0; for comparisons.

    Attributes:
        model_container: the language models of all decoders, by ``_model_key``. A model is there as long as its
            decoder.

    Raises:
        TypeError: an alphabet or a model of another type.
        ValueError: no word of the model or of its unigrams can be spelled by the labels.
    """

    model_container: ClassVar[dict[bytes, AbstractLanguageModel | None]] = {}
    _ALPHABET_SERIALIZED_FILENAME = "alphabet.json"
    _LANGUAGE_MODEL_SERIALIZED_DIRECTORY = "language_model"

    def __init__(
        self,
        alphabet: Alphabet,
        language_model: AbstractLanguageModel | None = None,
        *,
        parity: bool = False,
    ) -> None:
        if not isinstance(alphabet, Alphabet):
            raise TypeError(f"alphabet: expected an Alphabet, received {type(alphabet).__name__}")
        if language_model is not None and not isinstance(language_model, AbstractLanguageModel):
            raise TypeError(
                f"language_model: expected a LanguageModel, received {type(language_model).__name__}"
            )
        self._alphabet, self._parity = alphabet, parity
        self._labels = alphabet.labels
        self._blanks = [index for index, label in enumerate(self._labels) if not label]
        if not self._blanks:
            raise ValueError("alphabet: expected a blank, which is the label '', received none")
        self._keep(language_model)
        if self._in_tables:
            self._base()

    def _keep(self, language_model: AbstractLanguageModel | None) -> None:
        self._model_key = os.urandom(16)
        self.model_container[self._model_key] = language_model
        self._finalizer = weakref.finalize(self, self.model_container.pop, self._model_key, None)
        self._decoders: dict[tuple[Any, ...], CTCBeamDecoder] = {}

    def __getstate__(self) -> dict[str, Any]:
        made = ("_model_key", "_finalizer", "_decoders")
        kept = {name: value for name, value in vars(self).items() if name not in made}
        return {**kept, "language_model": self._language_model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        language_model = state.pop("language_model")
        vars(self).update(state)
        self._keep(language_model)

    @property
    def _language_model(self) -> AbstractLanguageModel | None:
        if self._model_key not in self.model_container:
            raise ValueError("the decoder's language model has been removed by cleanup or clear_class_models")
        return self.model_container[self._model_key]

    @classmethod
    def clear_class_models(cls) -> None:
        """Remove the language models of all decoders, which cannot decode from then on."""
        cls.model_container.clear()

    def cleanup(self) -> None:
        """Remove this decoder's language model; it cannot decode from then on."""
        self._finalizer()
        self._decoders.clear()

    def reset_params(
        self,
        alpha: float | None = None,
        beta: float | None = None,
        unk_score_offset: float | None = None,
        lm_score_boundary: bool | None = None,
    ) -> None:
        """Change parameters of the language model; without one nothing happens.

        Args:
            alpha, beta, unk_score_offset, lm_score_boundary: as in :func:`build_ctcdecoder`; None: as it is.

        Raises:
            ValueError: one out of its range; then none is changed.
        """
        given = {"alpha": alpha, "beta": beta, "unk_score_offset": unk_score_offset}
        new = {name: value for name, value in given.items() if value is not None}
        if lm_score_boundary is not None:
            new["score_boundary"] = lm_score_boundary
        language_model = self._language_model
        if language_model is not None:
            language_model.reset_params(**new)

    def decode(
        self,
        logits: np.ndarray,
        beam_width: int = DEFAULT_BEAM_WIDTH,
        beam_prune_logp: float = DEFAULT_PRUNE_LOGP,
        token_min_logp: float = DEFAULT_MIN_TOKEN_LOGP,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = DEFAULT_HOTWORD_WEIGHT,
        lm_start_state: Any = None,
        *,
        end_of_sentence: bool | None = None,
    ) -> str:
        """The best text.

        Args:
            logits, beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight, lm_start_state,
                end_of_sentence: as in :meth:`decode_beams`.

        Raises:
            TypeError, ValueError: as :meth:`decode_beams`.
        """
        options = (beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight)
        if not self._in_tables:
            # pyctcdecode prunes by history here, and so may find another text than decode_beams.
            return self._ask(logits, *options, self._parity, lm_start_state, end_of_sentence)[0].text
        [found] = self._found([logits], *options, lm_start_state, end_of_sentence, best_only=True)
        return found[0].text

    def decode_beams(
        self,
        logits: np.ndarray,
        beam_width: int = DEFAULT_BEAM_WIDTH,
        beam_prune_logp: float = DEFAULT_PRUNE_LOGP,
        token_min_logp: float = DEFAULT_MIN_TOKEN_LOGP,
        prune_history: bool = DEFAULT_PRUNE_BEAMS,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = DEFAULT_HOTWORD_WEIGHT,
        lm_start_state: Any = None,
        *,
        end_of_sentence: bool | None = None,
    ) -> list[OutputBeam]:
        """The beams, the best first.

        Args:
            logits: [T, V] log-probabilities, logits, or probabilities (all at least 0, each row's sum 1).
            beam_width: beams kept at each frame.
            beam_prune_logp: beams that are further than this below the best are dropped; ≤ 0.
            token_min_logp: less likely labels are impossible in a frame, but never its likeliest.
            prune_history: with another model than a LanguageModel, beams that differ only in words further back than
                it looks become one. Else there is nothing to do, since the search is quick without.
            hotwords: words or phrases; each word counts on its own.
            hotword_weight: of each word, in nats.
            lm_start_state: ``last_lm_state`` of the piece before; None: a text begins.
            end_of_sentence: whether the language model's sentence ends with the last frame. None: if
                ``lm_start_state`` is None. For the first piece of several give False, for the last one True.

        Raises:
            TypeError: logits or hotwords of another type, or a state of another kind of model.
            ValueError: a shape that is not [T, V], NaN, or an option out of its range.
        """
        options = (beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight)
        if not self._in_tables:
            return self._ask(logits, *options, prune_history, lm_start_state, end_of_sentence)
        [found] = self._found([logits], *options, lm_start_state, end_of_sentence)
        lm = self._language_model
        if lm is None:
            return [OutputBeam(h.text, None, *_scored(h)) for h in found]
        start = lm.get_start_state() if lm_start_state is None else lm_start_state
        return [OutputBeam(h.text, self._state_behind(h, start), *_scored(h)) for h in found]

    def decode_batch(
        self,
        pool: Any,
        logits_list: Sequence[np.ndarray],
        beam_width: int = DEFAULT_BEAM_WIDTH,
        beam_prune_logp: float = DEFAULT_PRUNE_LOGP,
        token_min_logp: float = DEFAULT_MIN_TOKEN_LOGP,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = DEFAULT_HOTWORD_WEIGHT,
    ) -> list[str]:
        """:meth:`decode` of several utterances on torch's threads.

        Args:
            pool: not used: no processes are needed, and one that is closed or dead does no harm.
            logits_list: each as in :meth:`decode_beams`, or a padded batch [N, T, V].
            beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight: as in :meth:`decode_beams`.

        Raises:
            TypeError, ValueError: as :meth:`decode_beams`.
        """
        options = (beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight)
        if not self._in_tables:
            return [self.decode(logits, *options) for logits in logits_list]
        return [found[0].text for found in self._found(logits_list, *options, best_only=True)]

    def decode_beams_batch(
        self,
        pool: Any,
        logits_list: Sequence[np.ndarray],
        beam_width: int = DEFAULT_BEAM_WIDTH,
        beam_prune_logp: float = DEFAULT_PRUNE_LOGP,
        token_min_logp: float = DEFAULT_MIN_TOKEN_LOGP,
        prune_history: bool = DEFAULT_PRUNE_BEAMS,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = DEFAULT_HOTWORD_WEIGHT,
    ) -> list[list[OutputBeamMPSafe]]:
        """:meth:`decode_beams` of several utterances on torch's threads, without states.

        Args:
            pool, logits_list: as in :meth:`decode_batch`.
            beam_width, beam_prune_logp, token_min_logp, prune_history, hotwords, hotword_weight: as in
                :meth:`decode_beams`.

        Raises:
            TypeError, ValueError: as :meth:`decode_beams`.
        """
        options = (beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight)
        if not self._in_tables:
            rows = [self._ask(logits, *options, prune_history) for logits in logits_list]
            return [[OutputBeamMPSafe(beam.text, *beam[2:]) for beam in row] for row in rows]
        rows = self._found(logits_list, *options)
        return [[OutputBeamMPSafe(h.text, *_scored(h)) for h in row] for row in rows]

    def save_to_dir(self, filepath: str | os.PathLike[str]) -> None:
        """Write ``alphabet.json`` and, with a language model, the folder ``language_model``.

        Args:
            filepath: a directory, made if it is not there. Other files in it stay.

        Raises:
            OSError: a file cannot be written.
            ValueError: ``language_model`` has other files.
            NotImplementedError: a model of another kind than LanguageModel.
        """
        folder = Path(filepath)
        folder.mkdir(parents=True, exist_ok=True)
        language_model = self._language_model
        if language_model is not None:
            models = folder / self._LANGUAGE_MODEL_SERIALIZED_DIRECTORY
            models.mkdir(exist_ok=True)
            language_model.save_to_dir(models)
        text = self._alphabet.dumps()
        (folder / self._ALPHABET_SERIALIZED_FILENAME).write_text(text, encoding="utf-8")

    @staticmethod
    def parse_directory_contents(filepath: str | os.PathLike[str]) -> dict[str, str | None]:
        """The files of a directory of :meth:`save_to_dir`. Others may lie beside them.

        Args:
            filepath: the directory.

        Returns:
            The paths, as alphabet and language_model (None if there is no such folder).

        Raises:
            OSError: there is no such directory.
            ValueError: it has no ``alphabet.json``.
        """
        folder = Path(filepath)
        names = os.listdir(folder)
        alphabet, models = (
            BeamSearchDecoderCTC._ALPHABET_SERIALIZED_FILENAME,
            BeamSearchDecoderCTC._LANGUAGE_MODEL_SERIALIZED_DIRECTORY,
        )
        if alphabet not in names:
            raise ValueError(
                f"{folder}: expected {alphabet}, found {', '.join(sorted(names)[:5]) or 'nothing'}"
            )
        return {
            "alphabet": str(folder / alphabet),
            "language_model": str(folder / models) if models in names else None,
        }

    @classmethod
    def load_from_dir(
        cls, filepath: str | os.PathLike[str], unigram_encoding: str | None = None, *, parity: bool = False
    ) -> BeamSearchDecoderCTC:
        """The decoder of a directory.

        Args:
            filepath: the directory, as :meth:`save_to_dir` or pyctcdecode has written it.
            unigram_encoding: of ``unigrams.txt``; None: UTF-8.
            parity: see the class.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a file is missing, or is not what its name says.
        """
        paths: dict[str, Any] = cls.parse_directory_contents(filepath)
        with about(paths["alphabet"]):
            alphabet = Alphabet.loads(Path(paths["alphabet"]).read_text("utf-8"))
        folder = paths["language_model"]
        lm = None
        if folder is not None:
            lm = LanguageModel.load_from_dir(folder, unigram_encoding, parity=parity)
        with about(filepath):
            return cls(alphabet, lm, parity=parity)

    @classmethod
    def load_from_hf_hub(
        cls, model_id: str, cache_dir: str | None = None, **kwargs: Any
    ) -> BeamSearchDecoderCTC:
        """The decoder of a repository on https://huggingface.co.

        Args:
            model_id: its name.
            cache_dir: where its files are kept; None: ``~/.cache/pyctcdecode``.
            kwargs: of ``huggingface_hub.snapshot_download``.

        Raises:
            ImportError: huggingface_hub is not installed.
            OSError, ValueError: as :meth:`load_from_dir`.
        """
        download = require("huggingface_hub", "hf").snapshot_download
        cache_dir = cache_dir or os.path.join(Path.home(), ".cache", "pyctcdecode")
        return cls.load_from_dir(download(model_id, cache_dir=cache_dir, **kwargs))

    @property
    def _in_tables(self) -> bool:
        """Whether the search is that of CTCBeamDecoder."""
        lm = self._language_model
        return not self._parity and (lm is None or type(lm) is LanguageModel)

    @renamed(**_NAMES)
    def _base(self) -> CTCBeamDecoder:
        """The decoder of the language model's parameters as they are now, with default options."""
        lm: Any = self._language_model
        attributes = () if lm is None else (lm.alpha, lm.beta, lm.unk_score_offset)
        if ("base", attributes) in self._decoders:
            return self._decoders["base", attributes]
        lexicon = None
        if lm is not None and lm._unigram_set:
            spelled = set("".join(self._labels)) - {WORD_MARK}
            lexicon = [word for word in lm._known_words() if spelled.issuperset(word)]
        alpha, beta, offset = attributes or (0.0, 0.0, 0.0)
        base = CTCBeamDecoder(
            self._labels,
            None if lm is None else lm._kenlm_model,
            lexicon or None,
            alpha=alpha,
            beta=beta,
            blank=self._blanks[0],
            space=self._space(),
            unk_score=alpha * LOG_BASE_CHANGE_FACTOR * offset if lm is not None else 0.0,
            check_normalized=False,
        )
        self._decoders.clear()
        self._decoders["base", attributes] = base
        return base

    def _space(self) -> str | None:
        if self._alphabet.is_bpe or not any(label.startswith(WORD_MARK) for label in self._labels):
            return None
        # "▁" is a letter.
        return " " if " " in self._labels else ""

    @renamed(**_NAMES)
    def _decoder(
        self,
        width: int,
        prune: float,
        least: float,
        hotwords: Iterable[str] | None,
        weight: float,
        nbest: int | None,
    ) -> CTCBeamDecoder:
        base = self._base()
        spelled = set("".join(self._labels))
        # Words that no labels spell do nothing.
        words = tuple(word for word in words_of(hotwords) if spelled.issuperset(word))
        options = (width, prune, least, words, weight, nbest)
        if options not in self._decoders:
            if len(self._decoders) >= _DECODERS_KEPT:
                self._decoders = {key: value for key, value in self._decoders.items() if key[0] == "base"}
            self._decoders[options] = base.replace(
                beam_width=width, nbest=width if nbest is None else nbest, beam_prune_logp=prune,
                token_min_logp=least, hotwords=words, hotword_weight=weight,
            )  # fmt: skip
        return self._decoders[options]

    @renamed(**_NAMES)
    def _found(
        self,
        logits_list: Sequence[np.ndarray],
        width: int,
        prune: float,
        least: float,
        hotwords: Iterable[str] | None,
        weight: float,
        lm_state: Any = None,
        end_of_sentence: bool | None = None,
        best_only: bool = False,
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each utterance, those far below the best left out."""
        if lm_state is not None and not isinstance(lm_state, NGramState):
            raise TypeError(
                f"lm_start_state: expected last_lm_state of a beam, received {type(lm_state).__name__}"
            )
        decoder = self._decoder(width, prune, least, hotwords, weight, 1 if best_only else None)
        utterances = [self._log_probs(logits) for logits in logits_list]
        lm: Any = self._language_model
        if lm is None and lm_state is not None:
            raise ValueError("lm_state: expected None without a language model")
        ends = lm_state is None if end_of_sentence is None else end_of_sentence
        if lm is not None and (not lm.score_boundary or lm_state is not None or not ends):
            start = lm.get_start_state() if lm_state is None else lm_state
            rows: list[Any] = [_in_text(decoder, u, start, ends and lm.score_boundary) for u in utterances]
        else:
            rows = decoder.decode_batch(utterances)
        for row in rows:
            if isinstance(row, ValueError):
                raise row
        return [[h for h in row if h.score >= row[0].score + prune] for row in rows]

    def _ask(
        self,
        logits: np.ndarray,
        width: int,
        prune: float,
        least: float,
        hotwords: Iterable[str] | None,
        weight: float,
        prune_history: bool,
        lm_state: Any = None,
        end_of_sentence: bool | None = None,
    ) -> list[OutputBeam]:
        """:meth:`decode_beams` by the search in Python."""
        ends = lm_state is None if end_of_sentence is None else end_of_sentence
        # The search adds up floats of Python, which are doubles.
        checked = self._checked(logits)
        log_probs = _as_log_probs(checked if self._parity else np.asarray(checked, np.float64), self._parity)
        if np.isnan(log_probs).any():
            raise ValueError("logits: expected numbers, received NaN")
        found = search(
            log_probs,
            self._labels,
            self._alphabet.is_bpe,
            self._language_model,
            HotwordScorer.build_scorer(hotwords, weight),
            beam_width=_count("beam_width", width),
            beam_prune_logp=prune,
            token_min_logp=least,
            prune_history=prune_history,
            lm_state=lm_state,
            end_of_sentence=ends or self._parity,
            parity=self._parity,
        )
        return [
            OutputBeam(
                b.text, b.state, list(zip(b.text.split(), b.frames)), float(b.logit_score), float(b.score)
            )
            for b in found
        ]

    def _state_behind(self, found: Hypothesis, start: Any) -> Any:
        """The language model's state behind the last word."""
        lm: Any = self._language_model
        words = [word.text for word in found.words]
        if len(words) >= lm.order - 1:
            words, state = words[len(words) - lm.order + 1 :], lm._kenlm_model.start(bos=False)
        else:
            state = start
        for word in words:
            unknown = lm._unigram_set and word not in lm._unigram_set
            state = lm._kenlm_model.step(state, 0 if unknown else word)[1]
        return state

    def _checked(self, logits: np.ndarray) -> np.ndarray:
        logits = np.asarray(logits)
        if logits.ndim != 2 or logits.shape[1] != len(self._labels):
            raise ValueError(
                f"logits: expected shape (time, {len(self._labels)}), one value for each label, received {logits.shape}"
            )
        return logits

    def _log_probs(self, logits: np.ndarray) -> np.ndarray:
        log_probs = _as_log_probs(np.asarray(self._checked(logits), np.float32), means=False)
        blank, *others = self._blanks
        for other in others:
            log_probs[:, blank] = np.logaddexp(log_probs[:, blank], log_probs[:, other])
            log_probs[:, other] = -np.inf
        return log_probs


def _as_log_probs(logits: np.ndarray, means: bool) -> np.ndarray:
    """Log-probabilities of logits or probabilities. means: rows whose sums are 1 on average count as probabilities,
    whatever they hold, and the arithmetic is numpy's, as in pyctcdecode."""
    if not means:
        x = as_scores(logits)
        # NaN fails both comparisons and stays, so that the search names it.
        if len(x) > 0 and x.min() >= 0 and ((x.sum(1) - 1).abs() <= 1e-3).all():
            return x.clamp(MIN_TOKEN_CLIP_P, 1).log().numpy()
        return x.log_softmax(-1).clamp(math.log(MIN_TOKEN_CLIP_P), 0).numpy()
    if len(logits) and math.isclose(logits.sum(axis=1).mean(), 1):
        return np.log(np.clip(logits, MIN_TOKEN_CLIP_P, 1))
    logits = logits - logits.max(axis=1, keepdims=True)
    logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.clip(logits, np.log(MIN_TOKEN_CLIP_P), 0)


def _in_text(decoder: CTCBeamDecoder, log_probs: np.ndarray, lm_state: Any, ends: bool) -> list[Hypothesis]:
    """The hypotheses of a piece of a text."""
    state = decoder.start(lm_state)
    decoder.step(state, log_probs)
    return decoder.finish(state, end_of_sentence=ends)


def _scored(found: Hypothesis) -> tuple[list[WordFrames], float, float]:
    frames = [(word.text, (word.start, word.end)) for word in found.words]
    return frames, found.am_score, found.score


def build_ctcdecoder(
    labels: Sequence[str],
    kenlm_model_path: str | os.PathLike[str] | NGramLM | None = None,
    unigrams: Collection[str] | None = None,
    alpha: float = DEFAULT_ALPHA,
    beta: float = DEFAULT_BETA,
    unk_score_offset: float = DEFAULT_UNK_LOGP_OFFSET,
    lm_score_boundary: bool = DEFAULT_SCORE_LM_BOUNDARY,
    *,
    parity: bool = False,
) -> BeamSearchDecoderCTC:
    """``pyctcdecode.build_ctcdecoder``; where its results differ from pyctcdecode 0.5.0's, says ``docs/decoder.md``.

    Args:
        labels: a model's labels, see :meth:`~asrkern.decoder.compat.pyctcdecode.Alphabet.build_alphabet`.
        kenlm_model_path: a language model's file, any that NGramLM opens, or an NGramLM; None: no model.
        unigrams: the words that are known; None: those of the model.
        alpha: weight of the language model's log-probabilities.
        beta: added for each word, in nats.
        unk_score_offset: added to log10 p of each unknown word.
        lm_score_boundary: whether sentences begin after ``<s>`` and end with ``</s>``.
        parity: search in Python with all habits of pyctcdecode 0.5.0; for comparisons.

    Raises:
        OSError: the model's file cannot be opened.
        TypeError: labels or unigrams of another type.
        ValueError: an argument that is out of its range.
    """
    lm = None
    alphabet = Alphabet.build_alphabet(labels)
    if kenlm_model_path is not None:
        if not isinstance(kenlm_model_path, (str, os.PathLike, NGramLM)):
            raise ValueError(
                f"kenlm_model_path: {type(kenlm_model_path).__name__} is not supported; expected a file or an NGramLM"
            )
        if unigrams is not None and not isinstance(unigrams, str):
            verify_alphabet_coverage(alphabet, unigrams)
        path = "" if isinstance(kenlm_model_path, NGramLM) else os.fspath(kenlm_model_path)
        if parity and unigrams is None and path.endswith(".arpa"):
            unigrams = _words_with_backoff(path)
        lm = LanguageModel(
            kenlm_model_path, unigrams, alpha, beta, unk_score_offset, lm_score_boundary, parity=parity
        )
    return BeamSearchDecoderCTC(alphabet, lm, parity=parity)


def _words_with_backoff(path: str | os.PathLike[str]) -> set[str]:
    """The words of an ARPA file whose lines have a back-off weight: pyctcdecode does not see the others."""
    words, inside = set(), False
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in map(str.strip, file):
            if line == "\\2-grams:":
                break
            inside = inside or line == "\\1-grams:"
            columns = line.split("\t")
            if inside and len(columns) == 3:
                words.add(columns[1])
    return words
