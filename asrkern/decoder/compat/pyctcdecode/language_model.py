"""``pyctcdecode.language_model``: an n-gram model with its weights, and the directory that it is saved in."""

from __future__ import annotations

import abc
import bisect
import json
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from asrkern._atomic_write import atomic_write
from asrkern.decoder._context import finite
from asrkern.decoder._files import about
from asrkern.decoder._lm_words import MARKS
from asrkern.decoder.compat._kenlm import Model
from asrkern.decoder.compat.pyctcdecode.constants import (
    AVG_TOKEN_LEN,
    DEFAULT_ALPHA,
    DEFAULT_BETA,
    DEFAULT_HOTWORD_WEIGHT,
    DEFAULT_SCORE_LM_BOUNDARY,
    DEFAULT_UNK_LOGP_OFFSET,
    LOG_BASE_CHANGE_FACTOR,
)
from asrkern.decoder.ngram_lm import NGramLM

# The files that NGramLM.open reads, pyctcdecode's first.
_MODEL_SUFFIXES = (".arpa", ".bin", ".binary", ".arpa.gz", ".safetensors")


class AbstractLanguageModel(abc.ABC):
    """What the search asks of a language model; subclass it for a model of your own, which Python then searches with.

    Scores are natural logarithms, weighted.
    """

    @property
    @abc.abstractmethod
    def order(self) -> int:
        """How many words the model's n-grams have at most; prune_history keeps one less."""

    @abc.abstractmethod
    def get_start_state(self) -> Any:
        """What the model keeps of the words before the first."""

    @abc.abstractmethod
    def score_partial_token(self, partial_token: str) -> float:
        """What an unfinished word is worth until it ends.

        Args:
            partial_token: its letters so far.
        """

    @abc.abstractmethod
    def score(self, prev_state: Any, word: str, is_last_word: bool = False) -> tuple[float, Any]:
        """The score of a word, and the state after it.

        Args:
            prev_state: of the word before, or of :meth:`get_start_state`.
            word: the word.
            is_last_word: whether the sentence ends after it, which counts, too.
        """

    def score_end(self, state: Any) -> float:
        """The score of a sentence's end where no word is unfinished.

        Args:
            state: after the last word.
        """
        return 0.0

    def save_to_dir(self, filepath: str | os.PathLike[str]) -> None:
        """Write the model into a directory, if a subclass says how.

        Args:
            filepath: the directory.

        Raises:
            NotImplementedError: it does not.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be saved")

    def reset_params(self, **params: Any) -> None:  # noqa: B027
        """Change parameters; here there are none.

        Args:
            params: by name.
        """


class LanguageModel(AbstractLanguageModel):
    """An n-gram model of words with its weights.

    Args:
        kenlm_model: the file of a model (ARPA, KenLM binary, :meth:`asrkern.decoder.NGramLM.save`), an NGramLM, or a
            ``kenlm.Model``, whose file is then read.
        unigrams: the words that are known; None: those of the model. Those that the model lacks are left out.
        alpha: weight of the model's log-probabilities.
        beta: added for each word, in nats.
        unk_score_offset: added to log10 p of each unknown word.
        score_boundary: whether sentences begin after ``<s>`` and end with ``</s>``.
        parity: without unigrams, no beginning of a word is known, as in pyctcdecode; else those of the model's words
            are.

    Raises:
        OSError: the file cannot be opened.
        TypeError: a model or unigrams of another type.
        ValueError: a parameter out of its range, or a file that is no model.
    """

    JSON_ATTRS = ("alpha", "beta", "unk_score_offset", "score_boundary")
    _ATTRS_SERIALIZED_FILENAME = "attrs.json"
    _UNIGRAMS_SERIALIZED_FILENAME = "unigrams.txt"

    def __init__(
        self,
        kenlm_model: str | os.PathLike[str] | NGramLM | Any,
        unigrams: Collection[str] | None = None,
        alpha: float = DEFAULT_ALPHA,
        beta: float = DEFAULT_BETA,
        unk_score_offset: float = DEFAULT_UNK_LOGP_OFFSET,
        score_boundary: bool = DEFAULT_SCORE_LM_BOUNDARY,
        *,
        parity: bool = False,
    ) -> None:
        if isinstance(unigrams, str):
            raise TypeError(f"unigrams: expected words, received a string, {unigrams!r:.80}")
        self._path, self._kenlm_model = _opened(kenlm_model)
        known = self._kenlm_model.word_id
        self._unigram_set = {word for word in unigrams or () if known(word)}
        self.alpha: float = DEFAULT_ALPHA
        self.beta: float = DEFAULT_BETA
        self.unk_score_offset: float = DEFAULT_UNK_LOGP_OFFSET
        self.score_boundary: bool = DEFAULT_SCORE_LM_BOUNDARY
        self.reset_params(
            alpha=alpha, beta=beta, unk_score_offset=unk_score_offset, score_boundary=score_boundary
        )
        self._parity = parity
        self._sorted: list[str] | None = None

    def reset_params(self, **params: Any) -> None:
        """Change parameters; all or none of them.

        Args:
            params: alpha, beta, unk_score_offset, score_boundary; None: as it is.

        Raises:
            TypeError: another parameter.
            ValueError: one out of its range.
        """
        new: dict[str, Any] = {}
        for name, value in params.items():
            if name not in self.JSON_ATTRS:
                raise TypeError(f"{name}: expected one of {', '.join(self.JSON_ATTRS)}")
            if value is None:
                continue
            if name == "score_boundary":
                if not isinstance(value, bool):
                    raise ValueError(f"{name}: expected True or False, received {value!r:.80}")
                new[name] = value
            else:
                new[name] = finite(name, value, **({"least": 0.0} if name == "alpha" else {}))
        vars(self).update(new)

    @property
    def order(self) -> int:
        """How many words the model's n-grams have at most."""
        return self._kenlm_model.order

    def get_start_state(self) -> Any:
        """The state of a sentence's beginning; without ``score_boundary``, of any place in a text."""
        return self._kenlm_model.start(self.score_boundary)

    def score_partial_token(self, partial_token: str) -> float:
        """unk_score_offset if no known word begins so, more if it is long; else 0.

        Args:
            partial_token: the letters of an unfinished word.
        """
        words = self._known_words()
        at = bisect.bisect_left(words, partial_token)
        if at < len(words) and words[at].startswith(partial_token):
            return 0.0
        return self.unk_score_offset * max(1.0, len(partial_token) / AVG_TOKEN_LEN)

    def score(self, prev_state: Any, word: str, is_last_word: bool = False) -> tuple[float, Any]:
        """The word's weighted log-probability with beta, and the state after it.

        Args:
            prev_state: the state before.
            word: the word.
            is_last_word: whether ``</s>`` follows, which counts with ``score_boundary``.
        """
        log10_p, state = self._kenlm_model.step(prev_state, word)
        if not self._kenlm_model.word_id(word) or (self._unigram_set and word not in self._unigram_set):
            log10_p += self.unk_score_offset
        if is_last_word and self.score_boundary:
            log10_p += self._kenlm_model.step(state, "</s>")[0]
        return self.alpha * log10_p * LOG_BASE_CHANGE_FACTOR + self.beta, state

    def score_end(self, state: Any) -> float:
        """The weighted log-probability of ``</s>``; 0 without ``score_boundary``.

        Args:
            state: after the last word.
        """
        if not self.score_boundary:
            return 0.0
        return self.alpha * self._kenlm_model.step(state, "</s>")[0] * LOG_BASE_CHANGE_FACTOR

    @property
    def serializable_attrs(self) -> dict[str, Any]:
        """The parameters, as ``attrs.json`` has them."""
        return {name: getattr(self, name) for name in self.JSON_ATTRS}

    def save_to_dir(self, filepath: str | os.PathLike[str], unigram_encoding: str | None = None) -> None:
        """Write ``attrs.json``, ``unigrams.txt`` and the model's file.

        A model that was read from a file is copied; one that :meth:`asrkern.decoder.NGramLM.estimate` made becomes
        ``lm.arpa``; of any other only asrkern can read the file, ``lm.safetensors``.

        Args:
            filepath: a directory, which is there.
            unigram_encoding: of ``unigrams.txt``; None: UTF-8.

        Raises:
            OSError: a file cannot be written.
            ValueError: the directory has other files, with which it could not be read.
        """
        folder, lm = Path(filepath), self._kenlm_model
        if self._path is not None:
            name = self._path.name
        else:
            name = "lm.safetensors" if lm._estimate is None else "lm.arpa"
        names = {self._ATTRS_SERIALIZED_FILENAME, self._UNIGRAMS_SERIALIZED_FILENAME, name}
        if others := _visible(folder) - names:
            raise ValueError(
                f"filepath: expected a folder without other files, {folder} has {_listed(others)}"
            )
        _write(folder / self._ATTRS_SERIALIZED_FILENAME, json.dumps(self.serializable_attrs), "utf-8")
        words = "".join(f"{word}\n" for word in self._known_words())
        _write(folder / self._UNIGRAMS_SERIALIZED_FILENAME, words, unigram_encoding or "utf-8")
        target = folder / name
        if self._path is None:
            (lm.save if lm._estimate is None else lm.to_arpa)(target)
        elif not (target.exists() and target.samefile(self._path)):
            with atomic_write(target) as temporary:
                shutil.copyfile(self._path, temporary)

    @staticmethod
    def parse_directory_contents(filepath: str | os.PathLike[str]) -> dict[str, str]:
        """The three files of a directory of :meth:`save_to_dir`. Names that begin with "." or "__" are passed over.

        Args:
            filepath: the directory.

        Returns:
            Their paths, as json_attrs, unigrams and kenlm.

        Raises:
            OSError: there is no such directory.
            ValueError: a file is missing, or there are others.
        """
        folder = Path(filepath)
        files = _visible(folder)
        found = {}
        for key, name in (
            ("json_attrs", LanguageModel._ATTRS_SERIALIZED_FILENAME),
            ("unigrams", LanguageModel._UNIGRAMS_SERIALIZED_FILENAME),
        ):
            if name not in files:
                raise ValueError(f"{folder}: expected {name}, found {_listed(files)}")
            found[key] = str(folder / name)
            files.remove(name)
        if len(files) != 1 or not next(iter(files)).endswith(_MODEL_SUFFIXES):
            raise ValueError(
                f"{folder}: expected one language model ({', '.join(_MODEL_SUFFIXES)}), found {_listed(files)}"
            )
        return {**found, "kenlm": str(folder / files.pop())}

    @classmethod
    def load_from_dir(
        cls, filepath: str | os.PathLike[str], unigram_encoding: str | None = None, *, parity: bool = False
    ) -> LanguageModel:
        """The model of a directory.

        Args:
            filepath: the directory.
            unigram_encoding: of ``unigrams.txt``; None: UTF-8.
            parity: see the class.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a file is missing, or is not what its name says.
        """
        paths = cls.parse_directory_contents(filepath)
        with about(paths["json_attrs"]):
            text = Path(paths["json_attrs"]).read_text("utf-8")
            try:
                attributes = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"expected JSON: {error}") from None
            if not isinstance(attributes, dict) or set(attributes) != set(cls.JSON_ATTRS):
                found = sorted(attributes) if isinstance(attributes, dict) else type(attributes).__name__
                raise ValueError(f"expected {', '.join(cls.JSON_ATTRS)}, received {found!s:.80}")
        with about(paths["unigrams"]):
            # Line feeds alone: the words may have other characters that Python takes for ends of lines.
            words = Path(paths["unigrams"]).read_text(unigram_encoding or "utf-8").split("\n")
        with about(filepath):
            return cls(paths["kenlm"], [word for word in words if word], **attributes, parity=parity)

    def _known_words(self) -> list[str]:
        """The words that are known, sorted."""
        if self._sorted is None:
            of_model = () if self._parity else (w for w in self._kenlm_model.words if w not in MARKS)
            self._sorted = sorted(self._unigram_set or of_model)
        return self._sorted


class MultiLanguageModel(AbstractLanguageModel):
    """Several models, whose scores are averaged. Its states are lists of theirs.

    Args:
        language_models: at least two.

    Raises:
        ValueError: fewer.
    """

    def __init__(self, language_models: Sequence[LanguageModel]) -> None:
        if len(language_models) < 2:
            raise ValueError(f"language_models: expected at least 2, received {len(language_models)}")
        self._language_models = list(language_models)

    @property
    def order(self) -> int:
        """The largest of the models' orders."""
        return max(model.order for model in self._language_models)

    def get_start_state(self) -> list[Any]:
        """The models' states before the first word."""
        return [model.get_start_state() for model in self._language_models]

    def score_partial_token(self, partial_token: str) -> float:
        """The mean of the models' scores.

        Args:
            partial_token: the letters of an unfinished word.
        """
        return _mean([model.score_partial_token(partial_token) for model in self._language_models])

    def score(
        self, prev_state: Sequence[Any], word: str, is_last_word: bool = False
    ) -> tuple[float, list[Any]]:
        """The mean of the models' scores, and their states after the word.

        Args:
            prev_state: the models' states before.
            word: the word.
            is_last_word: whether the sentence ends after it.

        Raises:
            ValueError: not one state for each model.
        """
        models = self._language_models
        if not isinstance(prev_state, Sequence) or len(prev_state) != len(models):
            raise ValueError(f"prev_state: expected {len(models)} states, received {prev_state!r:.80}")
        scores, states = zip(*(m.score(s, word, is_last_word) for m, s in zip(models, prev_state)))
        return _mean(scores), list(states)

    def score_end(self, state: Sequence[Any]) -> float:
        """The mean of the models' scores of a sentence's end.

        Args:
            state: the models' states after the last word.
        """
        return _mean([model.score_end(s) for model, s in zip(self._language_models, state)])


class HotwordScorer:
    """What hotwords are worth: each occurrence of one as a whole word its weight, the beginning of one a part of it.

    Args:
        words: single words.
        weight: of each, in nats.
    """

    def __init__(self, words: Iterable[str] = (), weight: float = DEFAULT_HOTWORD_WEIGHT) -> None:
        self._words = set(words)
        self._weight = weight
        # Each beginning → the letters of the shortest word that begins so.
        self._shortest: dict[str, int] = {}
        for word in sorted(self._words, key=len):
            for end in range(len(word) + 1):
                self._shortest.setdefault(word[:end], len(word))

    def __contains__(self, item: str) -> bool:
        return item in self._shortest

    def score(self, text: str) -> float:
        """What a text's whole words are worth.

        Args:
            text: words with white space between them.
        """
        return self._weight * sum(word in self._words for word in text.split())

    def score_partial_token(self, token: str) -> float:
        """What the beginning of a word is worth: as much of the weight as there is of the shortest hotword.

        Args:
            token: the letters so far.
        """
        return self._weight * len(token) / self._shortest[token] if token in self else 0.0

    @classmethod
    def build_scorer(
        cls, hotwords: Iterable[str] | None = None, weight: float = DEFAULT_HOTWORD_WEIGHT
    ) -> HotwordScorer:
        """The scorer of words and phrases; of a phrase each word counts on its own.

        Args:
            hotwords: words or phrases; None: none.
            weight: of each word, in nats.

        Raises:
            TypeError: hotwords is a string.
        """
        return cls(words_of(hotwords), weight)


def words_of(hotwords: Iterable[str] | None) -> list[str]:
    """The different words of words and phrases. TypeError if it is a string."""
    if isinstance(hotwords, str):
        raise TypeError(f"hotwords: expected a list of words or phrases, received a string, {hotwords!r}")
    return list(dict.fromkeys(word for phrase in hotwords or () for word in phrase.split()))


def load_unigram_set_from_arpa(arpa_path: str | os.PathLike[str]) -> set[str]:
    """The words of an ARPA file, whether or not their lines have a back-off weight.

    Args:
        arpa_path: the file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no ARPA file, or has no words.
    """
    words = set(NGramLM.from_arpa(arpa_path).words)
    if not words:
        raise ValueError(f"{os.fspath(arpa_path)}: expected words, received none")
    return words


def _opened(model: Any) -> tuple[Path | None, NGramLM]:
    """(the model's file if there is one, the model)."""
    if isinstance(model, NGramLM):
        return None, model
    if isinstance(model, Model):
        return Path(os.fsdecode(model.path)), model.lm
    # KenLM's Model has its path as bytes.
    path = getattr(model, "path", model)
    path = os.fsdecode(path) if isinstance(path, bytes) else path
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"kenlm_model: expected a file, an NGramLM or a kenlm.Model, received {model!r:.80}")
    return Path(path).absolute(), NGramLM.open(path)


def _visible(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if not name.startswith((".", "__"))}


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:5]) or "nothing"


def _write(path: Path, text: str, encoding: str) -> None:
    with atomic_write(path) as temporary:
        Path(temporary).write_text(text, encoding=encoding, newline="\n")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
