"""N-gram language models: read, estimated, saved, and asked for probabilities."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrkern import _decoder
from asrkern._file_kinds import is_safetensors
from asrkern.decoder import (
    _kenlm_binary,
    _ngram_estimate,
    _ngram_mix,
    _ngram_prune,
    _ngram_quantize,
    _saved_lm,
)
from asrkern.decoder._backoff_weights import NGrams
from asrkern.decoder._files import about, read_chunks
from asrkern.decoder._foreign_lm import refuse_foreign
from asrkern.decoder._ngram_estimate import Estimate, Progress, Tokenize

MAX_ORDER: int = _decoder.MAX_ORDER
# Files have −99 for log10 0. Back-off weights, which may be above 0, are added to it; no real probability is so small.
LOG_PROB_ZERO = -90.0
UNITS = ("word", "character", "token")
# Words for white space in models of characters: asrkern's; ESPnet's and Kaldi's; torchaudio's and fairseq's.
SPACES = ("▁", "<space>", "<SPACE>", "|")
# Tables of at most so many bytes are verified on loading, which takes a tenth of a second at most.
VERIFIED_BYTES = 1 << 28
# How many pairs of words NGramLM.to_arpa tries at most.
_MOST_PAIRS = 10**11


class WordScore(NamedTuple):
    """The score of a word.

    log_prob: log10 P(word | words before); order: how many words the n-gram has whose probability it is; unknown: whether
    the model does not know the word.
    """

    log_prob: float
    order: int
    unknown: bool


def perplexity(log_prob: float, words: int) -> float:
    """10 ^ (−log10 P / words); infinite if no float is large enough."""
    exponent = -log_prob / words
    return 10.0**exponent if exponent < 308 else math.inf


class NGramLM:
    """A back-off n-gram model of words, characters or tokens, of order 1 to 6, in flat hash tables or a mapped trie.

    Make one with :meth:`from_arpa`, :meth:`from_kenlm_binary`, :meth:`load` (:meth:`open` takes any of these files)
    or :meth:`estimate`. Probabilities are log10, as in ARPA files. Word 0 is ``<unk>``, as which unknown words score.
    If a file has no ``<unk>``, its log10 p is −100, as in KenLM.

    The words of a model of characters are single characters. With ``unit="character"`` sentences are split into
    characters, and ``space`` stands for white space between words (``"ab c"`` is ``a b ▁ c``). space=None: the first of
    "▁", "<space>" and "|" that the model knows.

    The words of a model of tokens (``unit="token"``) are an acoustic model's labels ("▁the", "##ing"), with white space
    between them in sentences. An ARPA file of :meth:`to_arpa` says that they are, in a comment.

    A model stays as it was made: edits of the attributes, and of the tables in place, are not seen by all of its methods.

    Attributes:
        order: how many words its longest n-grams have.
        unit: ``"word"``, ``"character"`` or ``"token"``.
        space: the word for white space in models of characters.
        bos, eos: ids of ``<s>`` and ``</s>``.
        tensors: the tables, which ``kernels/lm/ngram.h`` describes. ``unigrams`` [vocabulary, 2] float32;
            ``ngrams`` [slots, 2] int64, or [slots] and ``codebook`` [2, 256] float32 after :meth:`quantize`; ``words``
            [slots, 2] int64; ``strings`` uint8, the words with line feeds, empty where the file had none. A mapped trie
            of KenLM has, in place of ``ngrams`` and ``words``, ``trie`` [bytes] uint8 and ``trie_shape`` [2 + order]
            int64 (``kernels/lm/kenlm_trie.h``), and NULs for line feeds.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        order: int,
        bos: int,
        eos: int,
        unit: str = "word",
        space: str | None = None,
        estimate: Estimate | None = None,
    ) -> None:
        _check_unit(unit, SPACES[0] if space is None else space)
        self.tensors = {name: _aligned(tensor) for name, tensor in tensors.items()}
        self.order, self.bos, self.eos, self.unit = order, bos, eos, unit
        self.space = SPACES[0] if space is None else space
        self._estimate = estimate
        self._bind()
        if space is None and unit == "character":
            self._find_space()

    @classmethod
    def from_arpa(
        cls,
        path: str | os.PathLike[str],
        *,
        unit: str | None = None,
        space: str | None = None,
        keep_ngrams: bool = False,
    ) -> NGramLM:
        """Read an ARPA file, plain or compressed (gzip, bzip2, xz).

        Back-off weights may be missing, and so may n-grams that longer ones begin or end with. A probability of
        ``-inf`` is read as −99. IRSTLM's iARPA is interpolated, as ``compile-lm --text=yes`` does.

        Args:
            path: the file.
            unit, space: see the class. unit=None: what the file's comment says, else "word".
            keep_ngrams: whether the n-grams are kept beside the tables, so that :meth:`to_arpa` need not search for them.

        Warns:
            UserWarning: an n-gram is there twice: the first counts (of ``<unk>`` the last), as in KenLM; a
                log-probability is above 0 by less than 0.001, by rounding, and read as 0; or the first line is not one
                of an ARPA file and does not name one, and is taken for a comment.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is not an ARPA file, is cut short, has other counts than it announces, a positive or
                unreadable log-probability, an impossible number (below −1e6, or a back-off weight above 99), no ``<s>``
                or ``</s>``, or a line of more than 65536 bytes; with the number of the line. Or it is a file of another
                known kind; then the message says what converts it.
        """
        if unit is not None:
            _check_unit(unit, SPACES[0] if space is None else space)
        reader = _decoder.ArpaReader(keep_ngrams)
        with about(path):
            for number, chunk in enumerate(read_chunks(path)):
                if number == 0:
                    refuse_foreign(chunk)
                reader.feed(chunk)
            reader.finish()
            for warning in reader.warnings():
                warnings.warn(f"{os.fspath(path)}: {warning}", stacklevel=2)
            bos, eos = reader.word_id("<s>"), reader.word_id("</s>")
            tables = reader.tables()
            kept = Estimate(tables["strings"].tobytes(), reader.ngrams()) if keep_ngrams else None
            said = "token" if reader.unit == b"token" else "word"
            return cls(_as_tensors(tables), reader.order, bos, eos, unit or said, space, kept)

    @classmethod
    def from_kenlm_binary(
        cls,
        path: str | os.PathLike[str],
        *,
        words: Iterable[str] | None = None,
        unit: str | None = None,
        space: str | None = None,
        keep_ngrams: bool = False,
        mapped: bool | None = None,
        verify: bool | None = None,
    ) -> NGramLM:
        """Read a binary file of KenLM's ``build_binary``, of any type.

        These are ``probing`` with and without rest costs, which scores do not need, and ``trie``: plain, quantised
        (``-q``, ``-b``), with compressed pointers (``-a``), or both. The n-grams are put into hash tables, of 32 bytes
        for each n-gram; so asking is as fast for all types, and the file is not needed afterwards. :meth:`quantize`
        halves the tables.

        A trie can also be asked where it lies, mapped into memory (``mapped``). That takes 9 bytes for each word beside
        the file, whose pages the system shares among processes and gives back when memory is short. Asking takes
        longer. Scores and states are the same. The file has to stay as it is: cut short while it is mapped, it ends the
        process, as with other mapped files. :meth:`save`, :meth:`quantize` and decoders on a GPU convert it
        (:meth:`converted`).

        Args:
            path: the file.
            words: the vocabulary, in any order, for a file without words (``build_binary -v``), which holds hashes of
                them. ``<unk>``, ``<s>`` and ``</s>`` may be missing, words of no model be among them. None: such a
                model knows words by their hashes, but cannot name them, so that a decoder needs a lexicon. A file's
                own words go first.
            unit, space: see the class. unit=None: "word".
            keep_ngrams: see :meth:`from_arpa`. Of no effect but for tries: the others hold only hashes of n-grams.
            mapped: whether a trie is mapped, not converted. None: if the file has more than 1 GiB.
            verify: whether all numbers and pointers of a mapped trie are checked, which reads all of it. Without, those
                that no model has count as −99, as no weight and as no longer n-gram when they are met. None: if the file
                has at most 256 MiB (``ngram_lm.VERIFIED_BYTES``). Others are always checked.

        Raises:
            OSError: the file cannot be opened.
            TypeError: words is a single string.
            ValueError: it is no such file or is damaged. The format has no checksum: impossible numbers and pointers
                are found, other damage is not. Or it is of another version of the format than 5, which KenLM has
                written since September 2011, or of a 32-bit machine; or words lacks some of the model's; or it is no
                trie, and mapped is True.
        """
        if isinstance(words, str):
            raise TypeError(f"words: expected several of them, received the string {words!r}")
        with about(path):
            return cls._read_kenlm_binary(path, words, unit, space, keep_ngrams, mapped, verify)[0]

    @classmethod
    def _read_kenlm_binary(
        cls,
        path: str | os.PathLike[str],
        words: Iterable[str] | None = None,
        unit: str | None = None,
        space: str | None = None,
        keep_ngrams: bool = False,
        mapped: bool | None = None,
        verify: bool | None = None,
    ) -> tuple[NGramLM, int]:
        """(the model, the byte of the file behind its n-grams)"""
        binary = _kenlm_binary.read(path, words, keep_ngrams, mapped)
        lm = cls(_as_tensors(binary.tables), binary.order, binary.bos, binary.eos, unit or "word", space)
        if binary.ngrams and len(binary.tables["strings"]):
            lm._estimate = Estimate(lm._strings(), binary.ngrams)
        if not lm.is_mapped or (lm.nbytes <= VERIFIED_BYTES if verify is None else verify):
            lm._on_cpu().check_values()
        return lm, binary.end

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool | None = None) -> NGramLM:
        """Read a file of :meth:`save`. The tables are mapped into memory, not copied.

        Args:
            path: the file.
            verify: whether the file's checksum is compared and its numbers are checked, which reads all of it. None: if
                the tables have at most 256 MiB (``ngram_lm.VERIFIED_BYTES``). Files of early releases have no checksum:
                only their numbers are checked, unless ``verify`` is True.

        Raises:
            ImportError: safetensors is not installed.
            OSError: the file cannot be opened.
            ValueError: it is no such file, is damaged, or has no checksum although ``verify`` is True.
        """
        with about(path):
            tensors, fields, expected = _saved_lm.read(path)
            lm = cls(tensors, **fields)
            if lm.nbytes <= VERIFIED_BYTES if verify is None else verify:
                lm._verify(expected, required=bool(verify))
            return lm

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        unit: str | None = None,
        space: str | None = None,
        verify: bool | None = None,
        words: Iterable[str] | None = None,
        keep_ngrams: bool = False,
        mapped: bool | None = None,
    ) -> NGramLM:
        """Read a file of any of three kinds: of :meth:`save` (``.safetensors``), KenLM's, or ARPA.

        A ``.scorer`` package of DeepSpeech or Coqui STT is a file of KenLM's, too: its language model is read.

        Args:
            path: the file.
            unit: see the class; for KenLM's files and ARPA. A file of :meth:`save` has its own. None: "word", unless an
                ARPA file's comment says that its words are tokens.
            space: see the class; None for a file of :meth:`save`: its own.
            verify: for files of :meth:`save`, see :meth:`load`, and mapped ones of KenLM.
            words: for KenLM's files without words, see :meth:`from_kenlm_binary`.
            keep_ngrams: for KenLM's tries and ARPA, see :meth:`from_arpa`. Of no effect for the others.
            mapped: for KenLM's tries, see :meth:`from_kenlm_binary`. Of no effect for files of other projects and of
                :meth:`save`, which are mapped anyway.

        Raises:
            ImportError, OSError, TypeError, ValueError: as :meth:`load`, :meth:`from_kenlm_binary` or
                :meth:`from_arpa`.
        """
        with open(path, "rb") as file:
            beginning = file.read(len(_kenlm_binary.MAGIC_ANY))
        if os.fspath(path).endswith(".safetensors") or is_safetensors(beginning):
            lm = cls.load(path, verify=verify)
            return lm if space is None else cls(lm.tensors, lm.order, lm.bos, lm.eos, lm.unit, space)
        if beginning == _kenlm_binary.MAGIC_ANY:
            return cls.from_kenlm_binary(
                path,
                words=words,
                unit=unit,
                space=space,
                keep_ngrams=keep_ngrams,
                mapped=mapped,
                verify=verify,
            )
        return cls.from_arpa(path, unit=unit, space=space, keep_ngrams=keep_ngrams)

    @classmethod
    def estimate(
        cls,
        text: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        order: int,
        *,
        prune: Sequence[int] = (0,),
        discount_fallback: bool | Sequence[float] = False,
        unit: str = "word",
        space: str = "▁",
        tokenize: Tokenize | None = None,
        progress: Progress | None = None,
    ) -> NGramLM:
        """Interpolated modified Kneser-Ney estimate (Chen & Goodman 1998; Heafield et al. 2013), equal to ``lmplz``.

        The text is read once, from beginning to end, and never kept; its distinct n-grams are.

        Args:
            text: path of a text file, plain or ``.gz``, a sentence a line; or an iterable of lines (which are strings)
                and of files (which are Paths). For text in memory pass ``text.splitlines()``.
            order: 1 to 6.
            prune: n-grams of order n that occur at most ``prune[n − 1]`` times are left out; the last number counts for
                all higher orders, too. The first is 0, and they never decrease.
            discount_fallback: for orders whose counts give no discounts: True (0.5, 1, 1.5), or three discounts, for
                n-grams that occur once, twice, and more often.
            unit, space: see the class.
            tokenize: makes the tokens of a line of text, for ``unit="token"`` (:func:`asrkern.decoder.read_tokenizer`
                reads one). None: the text has white space between its words, characters or tokens.
            progress: called from time to time with (what is being done, units done, units in all or None).

        Raises:
            OSError: a file cannot be opened.
            TypeError: text holds something that is neither string nor Path.
            ValueError: an argument out of its range; no sentence; ``<s>``, ``</s>`` or ``<unk>`` in the text; or
                counts that give no discounts while ``discount_fallback`` is False.
        """
        _check_unit(unit, space)
        if tokenize is not None and unit != "token":
            raise ValueError(f"tokenize: expected None with unit {unit!r}, received a function")
        result = _ngram_estimate.estimate(
            text, order, prune, discount_fallback, unit == "character", space, tokenize, progress
        )
        tensors = _as_tensors(_decoder.make_tables(result.strings, result.orders))
        return cls(tensors, order, _ngram_estimate.BOS, _ngram_estimate.EOS, unit, space, result)

    def to_arpa(self, path: str | os.PathLike[str]) -> None:
        """Write the model as an ARPA file, compressed if the name ends in ``.gz``.

        Models of :meth:`estimate`, and those read with ``keep_ngrams``, have their n-grams. Of others the tables hold
        only hashes. Then all pairs of words that may be a bigram are tried, and so on for the higher orders: 30,000
        words have up to 900 million pairs.

        Args:
            path: the file; one that is there is replaced when the new one is whole.

        Raises:
            OSError: the file cannot be written; what was there before is untouched.
            ValueError: the model does not have its words; or its n-grams cannot be found, since there are more than
                10^11 pairs to try, or its tables are not those of asrkern or KenLM.
        """
        self._listed("to_arpa").to_arpa(path, self.unit)

    def prune(self, threshold: float, *, min_order: int = 2) -> NGramLM:
        """Without the n-grams that matter least, by relative entropy (Stolcke 1998), as SRILM's ``ngram -prune``.

        An n-gram goes if the perplexity that the model has for its own text grows by less than ``threshold`` without
        it, all others kept, unless it begins a longer one that stays. Then all back-off weights are computed anew.

        Args:
            threshold: the part by which perplexity may grow for each n-gram, such as 1e-8; at least 0.
            min_order: n-grams of lower orders stay; 2 or more.

        Raises:
            TypeError: an argument that is no number.
            ValueError: an argument out of its range; or the model's n-grams cannot be found, see :meth:`to_arpa`.
        """
        if isinstance(threshold, bool) or not isinstance(threshold, Real):
            raise TypeError(f"threshold: expected a number, received {threshold!r}")
        if not 0 <= threshold < math.inf:
            raise ValueError(f"threshold: expected a finite number of at least 0, received {threshold}")
        if isinstance(min_order, bool) or not isinstance(min_order, Integral):
            raise TypeError(f"min_order: expected an integer, received {min_order!r}")
        if min_order < 2:
            raise ValueError(f"min_order: expected at least 2, received {min_order}")
        part = self._part("prune")
        strings = "".join(f"{word}\n" for word in part.words).encode(errors="surrogateescape")
        orders = _ngram_prune.prune(
            part.model, strings, part.orders, self.bos, self.eos, float(threshold), int(min_order)
        )
        return self._of(strings, orders, self.bos, self.eos)

    @classmethod
    def interpolate(cls, models: Sequence[NGramLM], weights: Sequence[float]) -> NGramLM:
        """A linear mixture of models as one model, as SRILM's ``ngram -mix-lm`` makes it.

        It has the n-grams of all, with p = Σ weight · p of each model, backed off where that lacks the n-gram, and with
        back-off weights that make each distribution sum to 1. Words that a model lacks have probability 0 in it.

        Args:
            models: at least one, of the same unit and space.
            weights: one for each model, at least 0, that sum to 1.

        Raises:
            TypeError: models or weights of another type.
            ValueError: models of different units; weights out of range, or of another number than models; or a model's
                n-grams cannot be found, see :meth:`to_arpa`.
        """
        models = _checked_models(models)
        weights = list(weights)
        if not all(isinstance(weight, Real) for weight in weights):
            raise TypeError(f"weights: expected numbers, received {weights!r}")
        if len(weights) != len(models):
            raise ValueError(f"weights: expected {len(models)}, one for each model, received {len(weights)}")
        if not all(weight >= 0 for weight in weights) or not abs(sum(weights) - 1) < 1e-3:
            raise ValueError(f"weights: expected numbers of at least 0 that sum to 1, received {weights}")
        parts = [model._part("interpolate") for model in models]
        strings, orders = _ngram_mix.mix(parts, [float(weight) / sum(weights) for weight in weights])
        return models[0]._of(strings, orders, _ngram_estimate.BOS, _ngram_estimate.EOS)

    @staticmethod
    def best_weights(models: Sequence[NGramLM], sentences: Iterable[str]) -> list[float]:
        """The weights of a mixture that make a text likeliest, by expectation maximisation (SRILM's compute-best-mix).

        Args:
            models: as for :meth:`interpolate`.
            sentences: the text, each as :meth:`score` takes it. ``</s>`` counts; words that no model knows do not.

        Returns:
            A weight for each model; they sum to 1.

        Raises:
            TypeError: models of another type, or sentences is a single string.
            ValueError: models of different units, or none of them knows a word of the text.
        """
        models = _checked_models(models)
        if isinstance(sentences, str):
            raise TypeError(f"sentences: expected several of them, received the string {sentences!r}")
        probs = _ngram_mix.word_probs([model._on_cpu() for model in models], sentences)
        if not probs.shape[1]:
            raise ValueError("sentences: expected words that a model knows, received none")
        return _ngram_mix.best_weights(probs).tolist()

    def _listed(self, caller: str) -> Estimate:
        """The n-grams: as they were read or estimated, else found."""
        if self._estimate is not None:
            return self._estimate
        strings = self._strings()
        if not strings:
            raise ValueError(
                f"{caller}: expected a model that has its words, received one that has hashes of them "
                "(build_binary -v); NGramLM.open(words=...), or asrkern lm convert --words, takes a list of them"
            )
        if self.is_mapped:
            return Estimate(strings, _decoder.list_kenlm_trie(*self._trie()))
        return Estimate(strings, self._on_cpu().recover(_MOST_PAIRS))

    def _part(self, caller: str) -> _ngram_mix.Part:
        listed = self._listed(caller)
        words = listed.strings.decode(errors="surrogateescape").split("\n")[:-1]
        return _ngram_mix.Part(self._on_cpu(), words, [NGrams(*columns) for columns in listed.orders])

    def _of(self, strings: bytes, orders: Sequence[NGrams], bos: int, eos: int) -> NGramLM:
        """A model of these n-grams, of this one's unit."""
        listed = Estimate(strings, [(ngrams.words, ngrams.log_probs, ngrams.backoffs) for ngrams in orders])
        tensors = _as_tensors(_decoder.make_tables(strings, listed.orders))
        return NGramLM(tensors, len(orders), bos, eos, self.unit, self.space, listed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tables as a safetensors file with a checksum. :meth:`load` reads it without parsing.

        Args:
            path: the file; one that is there is replaced when the new one is whole.


        Raises:
            ImportError: safetensors is not installed.
            OSError: the file cannot be written; what was there before is untouched.
        """
        _saved_lm.write(path, self.converted().tensors, self._fields())

    def quantize(self) -> NGramLM:
        """The model in half the memory: 8 bits for each log-probability and back-off weight of order 2 and up."""
        if "codebook" in self.tensors:
            return self
        if self.is_mapped:
            return self.converted().quantize()
        tensors = self.tensors | _ngram_quantize.quantize(self.tensors["ngrams"].cpu())
        device = self.tensors["ngrams"].device
        return self._with({name: tensor.to(device) for name, tensor in tensors.items()})

    def to(self, device: torch.device | str) -> NGramLM:
        """The model with its tables on ``device``. Only on the CPU can it be asked for scores.

        A mapped trie is converted before it leaves the CPU.
        """
        if self.is_mapped and torch.device(device).type != "cpu":
            return self.converted().to(device)
        return self._with({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def converted(self) -> NGramLM:
        """The model in hash tables, of 32 bytes for each n-gram: of a mapped trie, a copy; else itself.

        Raises:
            ValueError: the trie is damaged.
        """
        if not self.is_mapped:
            return self
        tables, _ = _decoder.read_kenlm_trie(*self._trie())
        tables["strings"] = np.frombuffer(bytearray(self._strings()), np.uint8)
        lm = self._with(_as_tensors(tables))
        lm._on_cpu().check_values()
        return lm

    @property
    def is_mapped(self) -> bool:
        """Whether it is a trie of KenLM that is asked where it lies in the file."""
        return "trie" in self.tensors

    @property
    def vocabulary_size(self) -> int:
        """How many words the model has, ``<unk>``, ``<s>`` and ``</s>`` included."""
        return self.tensors["unigrams"].shape[0]

    @property
    def words(self) -> list[str]:
        """The words by id; empty for KenLM files without them (``build_binary -v``)."""
        return self._strings().decode(errors="backslashreplace").split("\n")[:-1]

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def word_id(self, word: str) -> int:
        """The id of ``word``; 0 if the model does not know it."""
        return self._on_cpu().word_id(word)

    def encode(self, sentence: str) -> list[int]:
        """The ids of the words of ``sentence`` (of its characters, in models of characters)."""
        return self._on_cpu().encode(sentence)

    def score(self, sentence: str, bos: bool = True, eos: bool = True) -> float:
        """log10 probability of a sentence.

        Args:
            sentence: words with white space between them.
            bos: whether ``<s>`` stands before it.
            eos: whether the probability of ``</s>`` after it counts.
        """
        return self._on_cpu().score_sentence(sentence, bos, eos)

    def score_batch(self, sentences: Iterable[str], bos: bool = True, eos: bool = True) -> Tensor:
        """log10 probabilities of many sentences, much faster than :meth:`score` for each.

        Args:
            sentences: each as :meth:`score` takes it.
            bos, eos: as in :meth:`score`.

        Returns:
            [N] float64.

        Raises:
            TypeError: sentences is a single string.
        """
        if isinstance(sentences, str):
            raise TypeError(f"sentences: expected several of them, received the string {sentences!r}")
        sentences = sentences if isinstance(sentences, list | tuple) else list(sentences)
        return torch.from_numpy(self._on_cpu().score_sentences(sentences, bos, eos))

    def full_scores(self, sentence: str, bos: bool = True, eos: bool = True) -> list[WordScore]:
        """The score of each word of a sentence, and of ``</s>`` if ``eos``.

        Args:
            sentence, bos, eos: as in :meth:`score`.

        Returns:
            A :class:`WordScore` for each.
        """
        scores = zip(*self._on_cpu().score_words(sentence, bos, eos))
        return [WordScore(log_prob, order, word == 0) for log_prob, order, word in scores]

    def start(self, bos: bool = True) -> _decoder.NGramState:
        """The state before the first word: after ``<s>``, or (``bos=False``) in the middle of a text."""
        return self._on_cpu().start(bos)

    def step(self, state: _decoder.NGramState, word: str | int) -> tuple[float, _decoder.NGramState]:
        """log10 P(word | state), and the state after the word.

        States are equal, with equal hashes, if the model cannot tell their futures apart.

        Args:
            state: of :meth:`start` or of the step before.
            word: a word, or its id.

        Raises:
            ValueError: the word's id is not in the vocabulary.
        """
        model = self._on_cpu()
        return model.step(state, model.word_id(word) if isinstance(word, str) else word)

    def perplexity(self, sentences: str | Sequence[str]) -> float:
        """:func:`perplexity` of one sentence or of several together, ``</s>`` counted as a word.

        Args:
            sentences: one, or a sequence of them, each as :meth:`score` takes it.


        Raises:
            ValueError: there is no sentence.
        """
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        if not sentences:
            raise ValueError("sentences: expected at least one, received none")
        words = sum(len(self.encode(sentence)) + 1 for sentence in sentences)
        return perplexity(float(self.score_batch(sentences).sum()), words)

    def __repr__(self) -> str:
        kind = ", quantized" if "codebook" in self.tensors else ", mapped" if self.is_mapped else ""
        return (
            f"NGramLM(order={self.order}, unit={self.unit!r}, {self.vocabulary_size} words, "
            f"{self.nbytes / 2**20:.1f} MiB{kind})"
        )

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_model", "_pointed_to", "_estimate")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _estimate=None)
        self._bind()

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _saved_lm.FIELDS}

    def _verify(self, expected: str | None, required: bool) -> None:
        """Raise ValueError unless the tables are those of this checksum, if there is one, and hold possible values."""
        if expected is None and required:
            raise ValueError(
                "expected a file with a checksum, received one without: load it and save it anew"
            )
        if (
            expected is not None
            and (received := _saved_lm.checksum(self.tensors, self._fields())) != expected
        ):
            raise ValueError(
                f"expected the checksum {expected[:16]}, received {received}: the file is damaged"
            )
        self._on_cpu().check_values()
        strings = self.tensors["strings"].numpy().tobytes()
        if strings and (strings.count(b"\n") != self.vocabulary_size or not strings.endswith(b"\n")):
            raise ValueError(f"strings: expected {self.vocabulary_size} words, received another number")

    def _strings(self) -> bytes:
        """The words with line feeds. A mapped trie has zeros in their place; elsewhere a zero is a word's own byte."""
        strings = self.tensors["strings"].cpu().numpy().tobytes()
        return strings.replace(b"\0", b"\n") if self.is_mapped else strings

    def _trie(self) -> tuple[np.ndarray, np.ndarray]:
        return self.tensors["trie"].numpy(), self.tensors["trie_shape"].numpy()

    def _with(self, tensors: dict[str, Tensor]) -> NGramLM:
        return NGramLM(tensors, self.order, self.bos, self.eos, self.unit, self.space, self._estimate)

    def _find_space(self) -> None:
        """Find the space that the model knows. "|" is none in NeMo's models, whose subwords are chr(100) and so on."""
        known = [space for space in SPACES if self._model is not None and self.word_id(space)]
        if known == ["|"] and self.word_id("{") and not self.word_id("a"):
            return
        if known and known[0] != self.space:
            self.space = known[0]
            self._bind()

    def _bind(self) -> None:
        """Let the C++ side point into the tables, if they are on the CPU."""
        others = ("trie", "trie_shape") if self.is_mapped else ("ngrams", "words")
        needed = ("unigrams", *others, "strings")
        missing = set(needed) - self.tensors.keys()
        if missing:
            raise ValueError(f"tensors: expected {', '.join(needed)}, received no {min(missing)}")
        for name, tensor in self.tensors.items():
            if name in _saved_lm.DTYPES and tensor.dtype != getattr(torch, _saved_lm.DTYPES[name][0]):
                raise ValueError(
                    f"{name}: expected a contiguous array of {_saved_lm.DTYPES[name][0]}, received {tensor.dtype}"
                )
        self._model = None
        self._pointed_to = [
            (tensor, tensor.data_ptr()) for name, tensor in self.tensors.items() if name != "strings"
        ]
        if any(tensor.device.type != "cpu" for tensor in self.tensors.values()):
            return
        tables: dict[str, Any] = {
            name: self.tensors[name].numpy() if name in self.tensors else None
            for name in ("unigrams", "ngrams", "codebook", "words")
        }
        self._model = _decoder.NGramModel(
            **tables,
            order=self.order,
            bos=self.bos,
            eos=self.eos,
            characters=self.unit == "character",
            space=self.space,
            trie=_decoder.MappedTrie(*self._trie()) if self.is_mapped else None,
        )

    def _on_cpu(self) -> _decoder.NGramModel:
        # torch moves the memory of tensors that it shares with other processes, so the pointers may be outdated.
        for tensor, address in self._pointed_to:
            if tensor.data_ptr() != address:
                self._bind()
                break
        if self._model is None:
            raise ValueError(
                f"expected tables on the CPU, received them on {self.tensors['unigrams'].device}"
            )
        return self._model


def _check_unit(unit: str, space: str) -> None:
    if unit not in UNITS:
        raise ValueError(f"unit: expected one of {', '.join(map(repr, UNITS))}, received {unit!r}")
    # NUL is white space, too, as in KenLM.
    if (
        not isinstance(space, str)
        or len(space.replace("\0", " ").split()) != 1
        or space != space.strip(" \0")
    ):
        raise ValueError(f"space: expected a text without white space, received {space!r}")


def _checked_models(models: Sequence[NGramLM]) -> list[NGramLM]:
    """Models that can be mixed."""
    models = list(models)
    for model in models:
        if not isinstance(model, NGramLM):
            raise TypeError(f"models: expected NGramLMs, received {type(model).__name__}")
    if not models:
        raise ValueError("models: expected at least one, received none")
    for model in models:
        if (model.unit, model.space) != (models[0].unit, models[0].space):
            raise ValueError(
                f"models: expected one unit and space, received {models[0].unit!r} with {models[0].space!r} and "
                f"{model.unit!r} with {model.space!r}"
            )
    return models


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor; a copy if its memory is not aligned to its values, as in files of other writers."""
    return tensor.clone() if tensor.data_ptr() % tensor.element_size() else tensor


def _as_tensors(tables: Mapping[str, Any]) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # Files are mapped for reading only, so that they may be larger than the memory.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return {name: torch.from_numpy(table) for name, table in tables.items()}
