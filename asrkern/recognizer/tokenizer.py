"""Transcripts to indices and back: characters, class labels, sentencepiece.

Every tokenizer has ``labels`` (a string for each output class, special ones included), ``size``, the indices ``blank``,
``pad``, ``sos`` and ``eos`` (None if the task does not have one), ``encode``, ``decode`` and ``to_json``.
:func:`tokenizer_from_json` reverses ``to_json``. :func:`make_tokenizer` makes the tokenizer of a recipe.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic

from asrkern._names import nearest
from asrkern._optional import require
from asrkern.decoder._files import about
from asrkern.decoder._tokens import (
    BEGINS_WORD,
    ENDS_WORD,
    INSIDE_WORD,
    Tokens,
    as_read,
    read_tokens,
)
from asrkern.decoder.labels import read_labels, read_tokens_of_model
from asrkern.models.deepspeech2_config import LABELS as ENGLISH
from asrkern.models.las_config import HW4_LABELS
from asrkern.recognizer._settings import Settings

Task = Literal["ctc", "attention", "classify"]

# Start, end and padding, with which KoSpeech's label files end.
_KOSPEECH_SPECIAL = ("<s>", "</s>", "_")
_BLANK = "_"


class TokenizerSettings(Settings):
    """The tokenizer of a recipe.

    Attributes:
        kind: "characters" or "sentencepiece". A classifier always has its classes instead.
        vocabulary: for characters: "english" (A to Z, apostrophe, space; in deepspeech.pytorch's order, for attention
            models in HW4P2's), "english27" (A to Z alone: the original VGG-GRU), "texts" (the characters of the
            training transcripts), or a file: one character a line, or KoSpeech's ``id,char,freq``.
        model: sentencepiece's model file; None to make one from the training transcripts.
        model_type: kind of a model that is made: "unigram", "bpe" or "word", whose pieces are whole words: for commands
            and digits, where letters that are said are not those that are written.
        pieces: how many pieces a model that is made gets, at most.
    """

    kind: Literal["characters", "sentencepiece"] = "characters"
    vocabulary: str = "english"
    model: str | None = None
    model_type: Literal["unigram", "bpe", "word"] = "unigram"
    pieces: int = pydantic.Field(default=256, ge=8)


@dataclass(frozen=True)
class CharacterTokenizer:
    """A label for each character, and special labels.

    Args:
        labels: a label for each output class.
        blank: index of CTC's blank, or None.
        pad, sos, eos: indices of padding, start and end, for attention models, or None.
        unit: "character"; or "class": the whole text is one label.

    Raises:
        ValueError: labels are not strings, one is there twice, or all are special; or an index is not that of a label.
    """

    labels: tuple[str, ...]
    blank: int | None = None
    pad: int | None = None
    sos: int | None = None
    eos: int | None = None
    unit: str = "character"
    _indices: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if not all(isinstance(label, str) for label in self.labels):
            raise ValueError(f"labels: expected strings, received {self.labels!r:.80}")
        for name in ("blank", "pad", "sos", "eos"):
            self._check_index(name, getattr(self, name))
        special = {self.blank, self.pad, self.sos, self.eos}
        indices = {label: i for i, label in enumerate(self.labels) if i not in special}
        if len(set(self.labels)) != len(self.labels):
            twice = next(label for label in self.labels if self.labels.count(label) > 1)
            raise ValueError(f"labels: expected each once, received {twice!r} more than once")
        if not indices:
            raise ValueError(f"labels: expected at least one that is not special, received {self.labels!r}")
        object.__setattr__(self, "_indices", indices)

    def _check_index(self, name: str, index: int | None) -> None:
        if index is None:
            return
        # Values of files may be anything.
        whole = isinstance(index, int) and not isinstance(index, bool)
        if not whole or not 0 <= index < len(self.labels):
            raise ValueError(
                f"{name}: expected the index of a label, 0 to {len(self.labels) - 1}, or none, received {index!r}"
            )

    @property
    def size(self) -> int:
        """Output classes."""
        return len(self.labels)

    def unknown(self, text: str) -> set[str]:
        """The characters of ``text`` that have no label; or the whole text, if it is a class without one."""
        return set(self._units(text)) - self._indices.keys()

    def encode(self, text: str) -> list[int]:
        """The indices of a normalised ``text``.

        Raises:
            ValueError: a character, or the class, has no label.
        """
        units = self._units(text)
        unknown = next((unit for unit in units if unit not in self._indices), None)
        if unknown is not None:
            expected = (
                nearest(unknown, self._indices)
                if self.unit == "class"
                else f"{len(self._indices)} known ones"
            )
            raise ValueError(
                f"text: expected {expected}, received the {self.unit} {unknown!r} in {text[:80]!r}"
            )
        return [self._indices[unit] for unit in units]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of indices ``tokens``, without spaces at its ends. Special labels have no text.

        Raises:
            IndexError: there is no such label.
        """
        special = {self.blank, self.pad, self.sos, self.eos}
        return "".join(self.labels[token] for token in tokens if token not in special).strip(" ")

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of this tokenizer."""
        names = ("labels", "blank", "pad", "sos", "eos", "unit")
        return {"kind": "characters", **{name: getattr(self, name) for name in names}}

    def _units(self, text: str) -> Sequence[str]:
        return [text] if self.unit == "class" else text


class SentencePieceTokenizer:
    """Subwords of a sentencepiece model (Kudo and Richardson 2018), with the special labels before them.

    Args:
        model: the serialised model.
        task: "ctc" puts a blank before the pieces, "attention" padding, start and end.

    Raises:
        ImportError: sentencepiece is not installed.
        ValueError: it is no such model.
    """

    unit = "piece"

    def __init__(self, model: bytes, task: Task) -> None:
        self._model, self._task = model, task
        try:
            self._processor = require("sentencepiece", "sentencepiece").SentencePieceProcessor(
                model_proto=model
            )
        except RuntimeError as error:
            raise ValueError(f"model: expected a sentencepiece model: {error}") from None
        special = (_BLANK,) if task == "ctc" else ("<pad>", "<sos>", "<eos>")
        self.blank = 0 if task == "ctc" else None
        self.pad: int | None
        self.sos: int | None
        self.eos: int | None
        self.pad, self.sos, self.eos = (None, None, None) if task == "ctc" else (0, 1, 2)
        self._offset = len(special)
        pieces = (self._processor.id_to_piece(i) for i in range(self._processor.vocab_size()))
        self.labels = (*special, *pieces)

    @property
    def size(self) -> int:
        """Output classes."""
        return len(self.labels)

    def unknown(self, text: str) -> set[str]:
        """The characters of ``text`` that are in no piece."""
        pieces, unknown = self._processor.encode(text, out_type=str), self._processor.unk_id()
        return {piece for piece in pieces if self._processor.piece_to_id(piece) == unknown}

    def encode(self, text: str) -> list[int]:
        """The indices of a normalised ``text``.

        Raises:
            ValueError: a character is in no piece.
        """
        if unknown := self.unknown(text):
            raise ValueError(
                f"text: expected known characters, received {sorted(unknown)[0]!r} in {text[:80]!r}"
            )
        return [piece + self._offset for piece in self._processor.encode(text)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of indices ``tokens``. Special labels have no text."""
        return self._processor.decode([token - self._offset for token in tokens if token >= self._offset])

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of this tokenizer."""
        model = base64.b64encode(self._model).decode()
        return {"kind": "sentencepiece", "task": self._task, "model": model}


class PieceTokenizer:
    """Subwords without the model that cuts texts into them: labels that begin words ("▁"), or go on ("##").

    Args:
        tokens: of :func:`asrkern.decoder._tokens.read_tokens`.
    """

    unit = "piece"
    pad = sos = eos = None

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.labels, self.blank = tuple(tokens.labels), tokens.blank

    @property
    def size(self) -> int:
        """Output classes."""
        return len(self.labels)

    def unknown(self, text: str) -> set[str]:
        """None: :meth:`encode` says what is missing."""
        return set()

    def encode(self, text: str) -> list[int]:
        """Not possible.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"text: expected a model with labels of one letter each, received one with {self.size} subwords, which do "
            "not say how a text is cut into them"
        )

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of indices ``tokens``. The blank has no text."""
        known, parts = self._tokens, []
        for token in tokens:
            if token != self.blank:
                parts.append("" if known.kinds[token] == INSIDE_WORD else known.joiner)
                parts.append(known.texts[token])
        return as_read("".join(parts))

    def to_json(self) -> dict[str, Any]:
        """Not possible.

        Raises:
            ValueError: always: no checkpoint has these.
        """
        raise ValueError(
            "tokenizer: expected one of characters or sentencepiece, received labels of an ONNX model"
        )


Tokenizer = CharacterTokenizer | SentencePieceTokenizer | PieceTokenizer


def read_tokenizer(path: str | os.PathLike[str]) -> CharacterTokenizer | PieceTokenizer:
    """The labels of a model that others have trained.

    Args:
        path: what :meth:`asrkern.decoder.CTCBeamDecoder.from_tokens` reads.

    Returns:
        Subwords if labels begin or go on with words ("▁", "##") or are bytes of letters ("<0xC3>"); else characters,
        with " " for the space.

    Raises:
        ImportError: a sentencepiece model, and sentencepiece is not installed.
        OSError: the file cannot be opened.
        ValueError: it has no labels, or none that can be the blank.
    """
    labels = read_tokens_of_model(path)
    with about(path):
        tokens = read_tokens(labels, None, None, one_word=False)
        subwords = tokens.joiner and (BEGINS_WORD in tokens.kinds or tokens.kinds.count(ENDS_WORD) != 1)
        if subwords or tokens.has_bytes:
            return PieceTokenizer(tokens)
        if tokens.joiner:
            labels[tokens.kinds.index(ENDS_WORD)] = " "
        return CharacterTokenizer(tuple(labels), blank=tokens.blank)


def tokenizer_from_json(value: dict[str, Any]) -> Tokenizer:
    """The tokenizer that ``to_json`` described.

    Raises:
        ValueError: its kind is not known.
    """
    options = dict(value)
    kind = options.pop("kind", None)
    if kind == "sentencepiece":
        return SentencePieceTokenizer(base64.b64decode(options["model"]), options["task"])
    if kind == "characters":
        return CharacterTokenizer(**options)
    raise ValueError(f"kind: expected 'characters' or 'sentencepiece', received {kind!r}")


def make_tokenizer(
    settings: TokenizerSettings, task: Task, texts: Iterable[str], path: Callable[[str], Path] = Path
) -> Tokenizer:
    """The tokenizer of a recipe.

    Args:
        texts: normalised training transcripts, or the classes of the training clips.
        path: function from a file's name in the settings to its path.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file has no labels.
    """
    if task == "classify":
        return CharacterTokenizer(tuple(sorted(set(texts))), unit="class")
    if settings.kind == "sentencepiece":
        model = _trained_pieces(texts, settings) if settings.model is None else None
        return SentencePieceTokenizer(model or path(str(settings.model)).read_bytes(), task)
    if settings.vocabulary == "texts":
        return _with_special(sorted(set().union(*texts)), task)
    if settings.vocabulary == "english27":
        return _with_special(ENGLISH[2:-1], task)
    if settings.vocabulary == "english":
        return _with_special(ENGLISH[1:] if task == "ctc" else HW4_LABELS[3:], task)
    return _with_special(read_vocabulary(path(settings.vocabulary)), task)


def read_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    """The labels of a file without empty ones; errors as :func:`asrkern.decoder.read_labels`."""
    return list(filter(None, read_labels(path)))


def _with_special(characters: Sequence[str], task: Task) -> CharacterTokenizer:
    labels = tuple(characters)
    if task == "ctc":
        return CharacterTokenizer((_BLANK if _BLANK not in labels else "<blank>", *labels), blank=0)
    if labels[-3:] == _KOSPEECH_SPECIAL:
        size = len(labels)
        return CharacterTokenizer(labels, sos=size - 3, eos=size - 2, pad=size - 1)
    return CharacterTokenizer((*HW4_LABELS[:3], *labels), pad=0, sos=1, eos=2)


def _trained_pieces(texts: Iterable[str], settings: TokenizerSettings) -> bytes:
    written = io.BytesIO()
    require("sentencepiece", "sentencepiece").SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        model_type=settings.model_type,
        vocab_size=settings.pieces,
        character_coverage=1.0,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return written.getvalue()
