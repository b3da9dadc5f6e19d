"""CTC beam search with words, a language model and hotwords."""

from __future__ import annotations

import copy
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from asrkern import _decoder, ops
from asrkern._lengths import Lengths
from asrkern.decoder import _scorer_package
from asrkern.decoder._context import Lexicon, build_context
from asrkern.decoder._files import about
from asrkern.decoder._scores import as_scores
from asrkern.decoder._tokens import as_read, read_tokens
from asrkern.decoder.hypothesis import Hypothesis, Partial, Word
from asrkern.decoder.labels import read_tokens_of_model
from asrkern.decoder.ngram_lm import NGramLM
from asrkern.ops._common import lengths_on
from asrkern.ops.ctc_beam_search import CTCContext, error_message, has_kernel

Array = Tensor | np.ndarray
_COUNTS = ("beam_width", "nbest", "top_tokens", "history")
_NO_LIMIT = (1 << 31) - 1
# Of the operation's arguments those that a decoder passes on as they are.
_OPTIONS = tuple(
    name
    for name in inspect.signature(ops.ctc_beam_search).parameters
    if name not in ("log_probs", "lengths", "blank", "context", "num_threads")
)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, received {value!r}")
    if value >= 1 << 31:
        raise ValueError(f"{name}: expected an integer below 2^31, received {value}")
    return int(value)


def _number(name: str, value: float) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, received {value!r}")
    return value


def _as_arrays(value: Any) -> Any:
    """A tensor of a context as an array, a tuple of tensors as a list of arrays; anything else as it is."""
    if isinstance(value, tuple):
        return [tensor.numpy() for tensor in value]
    return value.numpy() if isinstance(value, Tensor) else value


def _copy(context: CTCContext) -> CTCContext:
    """A context with tensors of its own, but for the language model's."""
    copied: dict[str, Any] = {
        name: value.clone() if isinstance(value, Tensor) else tuple(tensor.clone() for tensor in value)
        for name, value in context._asdict().items()
        if name != "language_model" and isinstance(value, (Tensor, tuple))
    }
    return context._replace(**copied)


class CTCBeamDecoder:
    """Prefix beam search over CTC outputs, with a word n-gram model, a lexicon and hotwords.

    The score of a text is ``log p_ctc + alpha · ln p_lm + beta · words``; ``p_ctc`` sums over all alignments (Graves et
    al. 2006; Hannun et al. 2014). Equal prefixes are merged before the best are chosen. Prefixes that only share the
    language model's state are not. At the end, prefixes with the same text become one hypothesis, and the likeliest
    texts are returned. A state of :meth:`start` that gets the frames in any pieces gives bit for bit what
    :meth:`decode` gives for the whole.

    Args:
        labels: the text of each token (:func:`asrkern.decoder.read_labels` reads files of them). The blank's text does
            not matter. Labels that begin with "▁" begin words, and further ones in them are spaces. If any begins with
            "##", those without it begin words. Else ``space`` stands between words. With none of these each label is a
            word, or, if a lexicon has longer words, labels are letters of one word. Several tokens may have the same
            label: each of them spells it. If there are ``<0x00>`` to ``<0xFF>`` (sentencepiece's byte_fallback), they
            spell letters in UTF-8; each byte of no letter becomes U+FFFD. Special tokens (``<unk>``, ``<s>``, ``<sos/eos>``
            …) are part of the text if the model emits them.
        lm: a model of words; or of characters or tokens, whose words are labels. Words that it does not know score as
            ``<unk>``. In models of characters its word for ``space`` is ``lm.space`` if it knows that, else the label,
            "▁", "<space>" or "|".
        lexicon: the only words allowed (unless ``unk_score`` allows others), spelled by labels in any way; or a mapping
            of words to their spellings, which are lists of labels. None: the words of ``lm``, and unknown ones.
        unit: what the model's words are: "word", "character" or "token". None: ``lm.unit``; but a model that was opened
            as one of words is taken for one of tokens if most of its words are labels, some with "▁" or "##", or if they
            are NeMo's.
        lm_token_offset: in a model of tokens the word of token i, counted without the blank, is chr(i + lm_token_offset);
            NeMo writes 100. 0: the words are the labels. None: told by the model's words.
        alpha: weight of the language model's log-probabilities.
        beta: added for each word (each token with a model of characters or tokens). None: 1.5 with a language model, else 0.
        beam_width: prefixes kept at each frame.
        nbest: hypotheses returned, of different texts, at most beam_width.
        token_min_logp: less likely tokens are impossible in a frame, but never its likeliest.
        beam_prune_logp: prefixes whose score is further than this below the best are dropped; ≤ 0.
        top_tokens: only so many of the likeliest tokens of a frame are possible; None: all.
        blank: index of the blank label. None: the only one that is "", or ``<blk>``, ``<blank>`` or ``<eps>`` (in any
            brackets and case); else the only ``<pad>``; else the only "_", if no label begins with "▁" or "##"; else
            the first, unless it is a space, begins a word, or is ``<unk>``.
        space: the label between words; "": there is none, and no label begins words. None: if no label begins with "▁"
            or "##", the first of " ", ``<space>`` and "|" that is a label. But "|" is no space among consecutive
            characters: NeMo writes subwords so.
        lm_case: case of the language model's words, "upper" or "lower", if the labels have the other; None: the model
            is asked for words as the labels spell them.
        hotwords: words or phrases; each occurrence of one, as whole words, is worth ``hotword_weight``. Or a mapping of
            them to weights of their own. Part of the weight is given in advance while a phrase is being spelled.
        hotword_weight: in nats.
        unk_score: added for each unknown word: one that is not in the lexicon or, without lexicon, not in ``lm``. −inf:
            unknown words are not allowed. None: −inf with a lexicon, else −10.
        blank_penalty: subtracted from blank's log-probability, before all pruning.
        smearing: an unfinished word is expected to score as the best word that it can become scores without context. It
            changes which prefixes survive, not the scores of texts.
        log_add: True: alignments are summed. False: the best one counts.
        history: in tokens. Prefixes that differ from the best one further back are dropped, each time texts have become
            longer by half of it, so that a second takes no more memory and time in recordings of hours; None: never.
        check_normalized: refuse rows whose probabilities do not sum to 1 within a factor of e^0.5.
        num_threads: at most so many of torch's threads; None: all.

    Raises:
        TypeError: labels, lexicon, lm, lm_token_offset or hotwords of another type.
        ValueError: an option out of its range; a blank that cannot be recognised; words or hotwords with letters that
            no label has.

    Warns:
        UserWarning: the language model does not know the space, has words of the other case, or has characters where
            words are expected; or the blank is a letter, since no label is named as one.
    """

    # Whether a hypothesis is a text; else it is a sequence of labels.
    _joins_texts = True

    def __init__(
        self,
        labels: Sequence[str],
        lm: NGramLM | None = None,
        lexicon: Lexicon | None = None,
        *,
        unit: str | None = None,
        lm_token_offset: int | None = None,
        alpha: float = 0.5,
        beta: float | None = None,
        beam_width: int = 100,
        nbest: int = 1,
        token_min_logp: float = -math.inf,
        beam_prune_logp: float = -math.inf,
        top_tokens: int | None = None,
        blank: int | None = None,
        space: str | None = None,
        lm_case: str | None = None,
        hotwords: Iterable[str] | Mapping[str, float] | None = None,
        hotword_weight: float = 10.0,
        unk_score: float | None = None,
        blank_penalty: float = 0.0,
        smearing: bool = True,
        log_add: bool = True,
        history: int | None = 512,
        check_normalized: bool = True,
        num_threads: int | None = None,
    ) -> None:
        if beta is None:
            beta = 0.0 if lm is None else 1.5
        if unk_score is None:
            unk_score = -10.0 if lexicon is None else -math.inf
        self.lm = lm
        self.device = torch.device("cpu")
        self._built = build_context(
            labels,
            lm,
            lexicon,
            unit=unit,
            lm_token_offset=lm_token_offset,
            alpha=alpha,
            beta=beta,
            blank=blank,
            space=space,
            lm_case=lm_case,
            unk_score=unk_score,
            smearing=smearing,
        )
        if not self._joins_texts:
            self._built = self._built._replace(context=self._built.context._replace(texts=None))
        # The tables on a device other than the CPU, with hotwords.
        self._there: CTCContext | None = None
        self._options: dict[str, Any] = {"blank": self._built.tokens.blank}
        self._set(
            beam_width=beam_width, nbest=nbest, token_min_logp=token_min_logp, beam_prune_logp=beam_prune_logp,
            top_tokens=top_tokens, hotwords=hotwords, hotword_weight=hotword_weight, blank_penalty=blank_penalty,
            log_add=log_add, history=history, check_normalized=check_normalized, num_threads=num_threads,
        )  # fmt: skip

    @classmethod
    def from_scorer(
        cls, path: str | os.PathLike[str], labels: Sequence[str], **options: Any
    ) -> CTCBeamDecoder:
        """A decoder with the language model, the words and the weights of a ``.scorer`` package.

        DeepSpeech 0.7 and later and Coqui STT write them: a language model of KenLM, the words that are allowed, alpha
        and beta. Scores are this class's: as there, each word adds ``alpha · ln p_lm + beta``.

        Args:
            path: the package, of version 6, made with an alphabet. Packages for bytes (UTF-8 mode) are refused.
            labels: see the class: the letters of the package's alphabet.txt in its order, and the blank, which those
                acoustic models have last.
            options: keyword arguments of the class but lm and lexicon. alpha and beta go before the package's.

        Raises:
            OSError: the file cannot be opened.
            TypeError: labels or options of another type.
            ValueError: it is no such package, is damaged, is for bytes or of another version; labels whose order is not
                that of its alphabet; or an option out of its range.
        """
        with about(path):
            lm, end = NGramLM._read_kenlm_binary(path)
            package = _scorer_package.read(path, end)
            tokens = read_tokens(labels, options.get("blank"), options.get("space"), one_word=False)
            words = _scorer_package.spell(package.words, tokens, os.path.getsize(path))
            known = [word for word in words if lm.word_id(word)]
            _scorer_package.check_known(len(known), words)
        return cls(labels, lm, known, **{"alpha": package.alpha, "beta": package.beta, **options})

    @classmethod
    def from_tokens(
        cls,
        path: str | os.PathLike[str],
        lm: NGramLM | None = None,
        lexicon: Lexicon | None = None,
        **options: Any,
    ) -> CTCBeamDecoder:
        """A decoder of the labels that a model's tools have written.

        Args:
            path: what :func:`asrkern.decoder.read_labels` reads (``tokens.txt``, ``vocab.txt``, ``vocab.json`` …), or a
                sentencepiece model, ``tokenizer.model``. If none of the labels can be the blank, and ``blank`` is not
                given, it is the output behind them, as in NeMo's models.
            lm, lexicon, options: of the class.

        Raises:
            ImportError: a sentencepiece model, and sentencepiece is not installed.
            OSError: the file cannot be opened.
            TypeError, ValueError: as the class; or the file has no labels.
        """
        return cls(read_tokens_of_model(path, options.get("blank")), lm, lexicon, **options)

    def replace(self, **options: Any) -> CTCBeamDecoder:
        """This decoder with other options. It shares labels, words and language model, so it is made quickly.

        Args:
            options: keyword arguments of the class: hotwords, hotword_weight, num_threads and the options of the
                search, which are beam_width and all that :func:`asrkern.ops.ctc_beam_search` has behind it but context.

        Raises:
            TypeError: another option.
            ValueError: an option out of its range.
        """
        other = copy.copy(self)
        other._options = dict(self._options)
        other._set(**options)
        return other

    def to(self, device: torch.device | str) -> CTCBeamDecoder:
        """This decoder with its tables on ``device``.

        :meth:`decode` then searches there, wherever the outputs are. Streams stay on the CPU.

        Raises:
            ValueError: a device other than the CPU for which asrkern has no beam search that has been checked there
                (``ASRKERN_CUDA=force`` takes one that has not). A decoder on the CPU takes outputs of any device.
        """
        device = torch.device(device)
        if device.type != "cpu" and not has_kernel(device):
            raise ValueError(
                f"device: expected cpu, received {device}, where there is no beam search of asrkern's that has been "
                "checked (ASRKERN_CUDA=force takes one that has not)"
            )
        other = copy.copy(self)
        other.device, other._there = torch.device("cpu"), None
        if device.type != "cpu":
            context = self._built.with_hotwords(self._automaton)
            if self.lm is not None and self.lm.is_mapped:
                # A GPU has no searches in tries.
                tables = self.lm.converted().tensors
                context = context._replace(language_model=(tables["unigrams"], tables["ngrams"]))
            other._there = context.to(device)
            # The device with its index.
            other.device = other._there.token_kinds.device
        return other

    @property
    def context(self) -> CTCContext:
        """The tables on the decoder's device, as :func:`asrkern.ops.ctc_beam_search` takes them.

        On the CPU those of labels, lexicon and hotwords are copies: the decoder has checked its own, once.
        """
        return _copy(self._built.with_hotwords(self._automaton)) if self._there is None else self._there

    def _set(self, **options: Any) -> None:
        hotwords = {name: options.pop(name) for name in ("hotwords", "hotword_weight") if name in options}
        if hotwords:
            self._hotwords = {**getattr(self, "_hotwords", {}), **hotwords}
            self._automaton = self._built.hotwords.automaton(
                self._hotwords["hotwords"], self._hotwords["hotword_weight"]
            )
            if self._there is not None:
                context = self._built.with_hotwords(self._automaton)
                # Tensors that are on a device already stay there.
                self._there = self._there._replace(
                    hotwords=tuple(tensor.to(self.device) for tensor in context.hotwords),
                    begin_reach=context.begin_reach,
                )
        if "num_threads" in options:
            self.num_threads = options.pop("num_threads")
            if self.num_threads is not None:
                self.num_threads = _count("num_threads", self.num_threads)
        for name, value in options.items():
            if name not in _OPTIONS:
                raise TypeError(
                    f"{name}: expected one of {', '.join(_OPTIONS)}, hotwords, hotword_weight, num_threads"
                )
            if name == "top_tokens" and value is None:
                value = len(self.labels)
            if name == "history" and value is None:
                value = _NO_LIMIT
            self._options[name] = (_count if name in _COUNTS else _number)(name, value)
        # Made here, so that options out of range are refused here.
        self._make_search()

    @property
    def labels(self) -> list[str]:
        """The text of each token."""
        return self._built.tokens.labels

    @overload
    def decode(
        self, log_probs: Array, lengths: Lengths, *, hotwords: Any = None
    ) -> list[list[Hypothesis]]: ...

    @overload
    def decode(
        self, log_probs: np.ndarray[tuple[int, int], Any], lengths: None = None, *, hotwords: Any = None
    ) -> list[Hypothesis]: ...

    @overload
    def decode(
        self, log_probs: np.ndarray[tuple[int, int, int], Any], lengths: None = None, *, hotwords: Any = None
    ) -> list[list[Hypothesis]]: ...

    # No type tells a tensor's rank.
    @overload
    def decode(self, log_probs: Array, lengths: None = None, *, hotwords: Any = None) -> list[Any]: ...

    def decode(
        self, log_probs: Array, lengths: Lengths | None = None, *, hotwords: Any = None
    ) -> list[Hypothesis] | list[list[Hypothesis]]:
        """The n-best of one utterance [T, V], or of each row of a padded batch [N, T, V].

        Args:
            log_probs: log-probabilities, numpy or torch, any floating dtype, strides and device.
            lengths: [N] integers, frames of each row; None: all T. Nothing beyond is read.
            hotwords: for one utterance, in place of the decoder's: words and phrases, or a mapping of them to weights.
                For a batch, a list with one such for each row; None in it: the decoder's own. The automata of lists are
                kept, so that the same list costs nothing again. None: the decoder's own for all.

        Returns:
            The hypotheses, the best first, at most ``nbest``: a list for one utterance, a list of lists for a batch. No
            frames give the empty text.

        Raises:
            TypeError: log_probs is not floating-point, or lengths not integer.
            ValueError: wrong rank or number of labels; lengths beyond T; or, in a row, NaN, nothing but −inf,
                probabilities or logits.
        """
        scores = self._as_tensor(log_probs, (2, 3))
        if scores.dim() == 2:
            if lengths is not None:
                raise ValueError("lengths: expected None with an utterance [T, V]; cut it to its length")
            each = None if hotwords is None else [hotwords]
            return self._search_batch(scores[None], None, each, raise_errors=True)[0]
        return self._search_batch(scores, lengths, hotwords, raise_errors=True)

    def decode_batch(
        self,
        log_probs: Array | Sequence[Array],
        lengths: Lengths | None = None,
        *,
        hotwords: Sequence[Iterable[str] | Mapping[str, float] | None] | None = None,
    ) -> list[list[Hypothesis] | ValueError]:
        """:meth:`decode` where one bad utterance does not lose the others.

        Args:
            log_probs: a padded batch [N, T, V], or a list of utterances [T, V] of any lengths.
            lengths: [N] integers, frames of each row of a padded batch; None: all T.
            hotwords: a list or mapping for each utterance, as for a batch of :meth:`decode`.

        Returns:
            For each utterance its n-best; or, if :meth:`decode` would have raised ValueError for its values, that
            error. Utterances are decoded on several threads, without the interpreter's lock.

        Raises:
            TypeError, ValueError: as :meth:`decode`, for what is wrong with the whole call: types, ranks, labels,
                lengths.
        """
        if isinstance(log_probs, (Tensor, np.ndarray)):
            return self._search_batch(self._as_tensor(log_probs, (3,)), lengths, hotwords, raise_errors=False)
        if lengths is not None:
            raise ValueError("lengths: expected None with a list of utterances")
        utterances = [self._as_tensor(utterance, (2,)).to(self.device).float() for utterance in log_probs]
        if not utterances:
            return []
        frames = torch.tensor([len(utterance) for utterance in utterances])
        padded = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
        return self._search_batch(padded, frames, hotwords, raise_errors=False)

    def start(self, lm_state: _decoder.NGramState | None = None) -> _decoder.CtcBeamState:
        """A new stream. Its state can be pickled and copied, and goes on in any decoder with the same arguments.

        Args:
            lm_state: what the language model knows of the text before (:meth:`NGramLM.start` and :meth:`NGramLM.step`
                make it); None: the stream begins a sentence.

        Raises:
            TypeError: lm_state is no state of an NGramLM.
            ValueError: it is one of another model.
        """
        if lm_state is not None and not isinstance(lm_state, _decoder.NGramState):
            raise TypeError(
                f"lm_state: expected a state of NGramLM.start or step, received {type(lm_state).__name__}"
            )
        return self._search.start(lm_state)

    def step(self, state: _decoder.CtcBeamState, log_probs: Array) -> None:
        """Feed the next frames to a stream.

        Args:
            state: of :meth:`start`; it goes on.
            log_probs: [frames, V] log-probabilities, numpy or torch, any floating dtype, strides and device.


        Raises:
            TypeError, ValueError: as :meth:`decode`. Frames before a bad one are taken; the bad one and later ones are
                not.
        """
        chunk = self._as_tensor(log_probs, (2,)).cpu().float().numpy()
        error, frame = self._search.step(state, chunk)
        if error:
            raise ValueError(error_message(error, state.frames if frame < len(chunk) else frame))

    def partial(self, state: _decoder.CtcBeamState, after: int = 0) -> Partial:
        """What is known so far, as if more frames were to come.

        Words that all prefixes of the beam begin with stay, whatever follows; ``history`` bounds the rest. In a loop::

            found = decoder.partial(state, after=len(words))
            words += found.words  # each once
            show(found.tail)  # in place of the tail before

        Args:
            state: of :meth:`start`.
            after: how many of the stable words the caller already has.

        Raises:
            ValueError: after is more than there are, or the state is of another decoder.
        """
        if isinstance(after, bool) or not isinstance(after, Integral) or not 0 <= after < 1 << 31:
            raise ValueError(f"after: expected how many stable words are known, received {after!r}")
        return Partial(self, state, after, self._search.partial(state, after))

    def finish(self, state: _decoder.CtcBeamState, end_of_sentence: bool = True) -> list[Hypothesis]:
        """The n-best of the whole stream, with the last word ended.

        Args:
            state: of :meth:`start`; it stays as it is, and may go on.
            end_of_sentence: whether the language model's probability of ``</s>`` counts.
        """
        return self._hypotheses(self._search.results(state, end_of_sentence))

    _plain: _decoder.CtcBeamSearch | None = None
    _made: _decoder.CtcBeamSearch
    _model: _decoder.NGramModel | None

    @property
    def _search(self) -> _decoder.CtcBeamSearch:
        """The search with the decoder's own hotwords, which points into the language model's tables."""
        # torch moves the memory of tensors that it shares with other processes, so it may have to be made again.
        if self.lm is not None and self.lm._on_cpu() is not self._model:
            self._make_search()
        return self._made

    def _make_search(self) -> None:
        model = None if self.lm is None else self.lm._on_cpu()
        # It has checked copies of all tables but the language model's, so the others are made from it.
        if self._plain is None or model is not self._model:
            self._model, tokens = model, self._built.tokens
            kinds = np.array(tokens.kinds, np.uint8)
            finish = as_read if tokens.need_reading else None
            self._labels = _decoder.Labels(Word, kinds, tokens.texts, self._built.words, finish)
            self._plain = _decoder.CtcBeamSearch(
                context={name: _as_arrays(value) for name, value in self._built.context._asdict().items()},
                language_model=model,
                options=self._options,
                labels=self._labels,
            )
        self._made = self._plain.replace(options=self._options, hotwords=self._automaton)

    def __getstate__(self) -> dict[str, Any]:
        made = ("_made", "_plain", "_model", "_labels")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_search()

    def _as_tensor(self, log_probs: Array, dims: tuple[int, ...]) -> Tensor:
        if not isinstance(log_probs, (Tensor, np.ndarray)):
            raise TypeError(f"log_probs: expected a tensor or an array, received {type(log_probs).__name__}")
        scores = as_scores(log_probs)
        shapes = {2: "[T, V]", 3: "[N, T, V]"}
        if scores.dim() not in dims:
            expected = " or ".join(shapes[d] for d in dims)
            raise ValueError(f"log_probs: expected shape {expected}, received {tuple(scores.shape)}")
        if scores.shape[-1] != len(self.labels):
            raise ValueError(
                f"log_probs: expected {len(self.labels)} values a frame, one for each of labels, received shape "
                f"{tuple(scores.shape)}"
            )
        return scores

    def _searches(self, rows: int, hotwords: Any) -> list[_decoder.CtcBeamSearch]:
        """The search of each row, with its hotwords."""
        own = self._search
        if hotwords is None:
            return [own] * rows
        if isinstance(hotwords, (str, Mapping)) or not isinstance(hotwords, Sequence):
            raise TypeError(
                f"hotwords: expected a list with the hotwords of each row, received {type(hotwords).__name__}"
            )
        if len(hotwords) != rows:
            raise ValueError(f"hotwords: expected one list for each of {rows} rows, received {len(hotwords)}")
        automata = [
            self._automaton
            if each is None
            else self._built.hotwords.automaton(each, self._hotwords["hotword_weight"])
            for each in hotwords
        ]
        # The automata of equal lists are one, since they are kept.
        searches = {id(self._automaton): own}
        for automaton in automata:
            if id(automaton) not in searches:
                searches[id(automaton)] = own.replace(options=self._options, hotwords=automaton)
        return [searches[id(automaton)] for automaton in automata]

    def _search_batch(
        self, log_probs: Tensor, lengths: Lengths | None, hotwords: Any, *, raise_errors: bool
    ) -> list[Any]:
        there = self.device.type != "cpu"
        if there and hotwords is not None:
            raise ValueError(
                "hotwords: expected None with a decoder on a GPU, whose rows share the decoder's own"
            )
        found = (
            self._search_there(log_probs, lengths)
            if there
            else self._search_rows(log_probs, lengths, hotwords)
        )
        results: list[Any] = []
        for row, each in enumerate(found):
            if isinstance(each, list):
                results.append(self._hypotheses(each))
                continue
            error, frame = each
            failure = ValueError(error_message(error, frame, row))
            if raise_errors:
                raise failure
            results.append(failure)
        return results

    def _search_rows(self, log_probs: Tensor, lengths: Lengths | None, hotwords: Any) -> list[Any]:
        """For each row what its hypotheses are made of, or an error and its frame."""
        rows, frames, _ = log_probs.shape
        available = torch.get_num_threads()
        counts = lengths_on(torch.device("cpu"), "lengths", lengths, rows)
        return _decoder.search_rows(
            self._searches(rows, hotwords),
            log_probs.detach().cpu().float().numpy(),
            np.full(rows, frames) if counts is None else counts.numpy(),
            min(self.num_threads or available, available),
        )

    def _search_there(self, log_probs: Tensor, lengths: Lengths | None) -> list[Any]:
        """The same by the operation, on the decoder's device."""
        found = ops.ctc_beam_search(log_probs.to(self.device), lengths, context=self._there, **self._options)
        found = ops.CTCBeamSearchResult(*(tensor.cpu() for tensor in found))
        columns = (found.token_lengths, found.tokens, found.timesteps, found.words, found.confidences)
        read = self._labels.read_rows(*(column.numpy() for column in columns))
        each = zip(found.scores.tolist(), found.am_scores.tolist(), read)
        return [
            (error, frame) if error else list(zip(*values))
            for (error, frame), values in zip(found.errors.tolist(), each)
        ]

    def _read_one(self, columns: Sequence[Any]) -> tuple[Any, ...]:
        """A hypothesis, or a part of one, from the columns of its tokens: tokens, starts, ends, words, confidences."""
        tokens, starts, ends, words, confidences = columns
        times = [[[*zip(starts, ends)]]] if tokens else np.zeros((1, 1, 0, 2))
        return self._labels.read_rows([[len(tokens)]], [[tokens]], times, [[words]], [[confidences]])[0][0]

    def _hypotheses(self, found: Iterable[tuple[float, float, tuple[Any, ...]]]) -> list[Any]:
        """Hypotheses of what was read, each text once, the best first."""
        if self._joins_texts and self._built.tokens.need_reading:
            # Tokens that differ can read the same: other bytes of no letter, further spaces.
            add: Callable[..., float] = np.logaddexp if self._options["log_add"] else max
            once: dict[str, tuple[float, float, tuple[Any, ...]]] = {}
            for score, am_score, read in found:
                text = self.join(read[2])
                if text in once:
                    first, first_am, read = once[text]
                    score, am_score = float(add(first, score)), float(add(first_am, am_score))
                once[text] = score, am_score, read
            found = sorted(once.values(), key=lambda one: -one[0])
        return [self._hypothesis(score, am_score, *read) for score, am_score, read in found]

    def _hypothesis(
        self, score: float, am_score: float, tokens: list[int], starts: list[int], words: list[Word], end: int
    ) -> Any:
        """A hypothesis of what was read. end: the frame after the last token, for decoders that tell it."""
        return Hypothesis(self.join(words), tokens, starts, words, score, am_score, score - am_score)

    def join(self, words: Iterable[Word]) -> str:
        """The text of ``words``, with a space between them if the labels have one."""
        return self._built.tokens.joiner.join(word.text for word in words if word.text)
