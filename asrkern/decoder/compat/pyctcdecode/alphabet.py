"""``pyctcdecode.alphabet``: labels as the decoder takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable

from asrkern.decoder._tokens import WORD_MARK, WORDPIECE_MARK, find_space
from asrkern.decoder._warn import warn

# Names that users of pyctcdecode import; transformers does.
BPE_TOKEN = WORD_MARK
UNK_TOKEN = "⁇"
UNK_BPE_TOKEN = f"{BPE_TOKEN}{UNK_TOKEN}{BPE_TOKEN}"
SPECIAL_TOKEN_PTN = re.compile(r"^[<\[].+[>\]]$")
BLANK_TOKEN_PTN = re.compile(r"^[<\[]pad[>\]]$", re.IGNORECASE)
UNK_TOKEN_PTN = re.compile(r"^[<\[]unk[>\]]$", re.IGNORECASE)

_KEYS = {"labels", "is_bpe"}
# At least so much of the words' letters are labels, or the words are of another script or case.
_COVERED = 0.8


class Alphabet:
    """Labels in pyctcdecode's form: "" is the blank, " " the space; with ``is_bpe``, labels with "▁" begin words.

    Args:
        labels: in that form, one for each output of the model; :meth:`build_alphabet` makes it of a model's own labels.
        is_bpe: whether "▁" begins words; else " " stands between them.

    Raises:
        TypeError: labels that are no strings, or is_bpe that is no bool.
    """

    def __init__(self, labels: Iterable[str], is_bpe: bool) -> None:
        self._labels = _as_labels(labels)
        if not isinstance(is_bpe, bool):
            raise TypeError(f"is_bpe: expected True or False, received {is_bpe!r:.80}")
        self._is_bpe = is_bpe

    @property
    def is_bpe(self) -> bool:
        """Whether "▁" begins words."""
        return self._is_bpe

    @property
    def labels(self) -> list[str]:
        """A copy of the labels."""
        return list(self._labels)

    @classmethod
    def build_alphabet(cls, labels: Iterable[str]) -> Alphabet:
        """An alphabet of a model's labels.

        The blank is ``[PAD]`` or ``<pad>``, else "_", else appended. "|" is the space if there is no " ", but not among
        consecutive characters: NeMo writes subwords so. Labels with "##" or "▁" mean subwords. ``[UNK]`` is "⁇". A
        label may be there twice.

        Args:
            labels: one for each output of the model.

        Raises:
            TypeError: labels that are no strings.
        """
        labels = _as_labels(labels)
        return cls._build(labels, any(label.startswith((WORDPIECE_MARK, BPE_TOKEN)) for label in labels))

    @classmethod
    def build_bpe_alphabet(
        cls, labels: Iterable[str], unk_token_idx: int | None = None, ctc_token_idx: int | None = None
    ) -> Alphabet:
        """An alphabet of subwords, as of pyctcdecode 0.1, which could not tell them by their "▁".

        Args:
            labels: as in :meth:`build_alphabet`.
            unk_token_idx: the index of the token for what is unknown; None: ``<unk>`` if it is there.
            ctc_token_idx: the index of the blank; None: as in :meth:`build_alphabet`.

        Raises:
            TypeError: labels that are no strings.
            ValueError: an index of no label.
        """
        labels = _as_labels(labels)
        for name, index, text in (
            ("unk_token_idx", unk_token_idx, UNK_BPE_TOKEN),
            ("ctc_token_idx", ctc_token_idx, ""),
        ):
            if index is None:
                continue
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(labels):
                raise ValueError(f"{name}: expected the index of a label, received {index!r}")
            labels[index] = text
        return cls._build(labels, True)

    @classmethod
    def _build(cls, labels: list[str], is_bpe: bool) -> Alphabet:
        if any(label.startswith(WORDPIECE_MARK) for label in labels):
            labels = [_marked(label) for label in labels]
        labels = ["" if BLANK_TOKEN_PTN.match(label) else label for label in labels]
        if not is_bpe and "" not in labels:
            labels = ["" if label == "_" else label for label in labels]
        if not is_bpe and find_space([label for label in labels if label]) == "|":
            labels = [" " if label == "|" else label for label in labels]
        if "" not in labels:
            labels.append("")
        unknown = UNK_BPE_TOKEN if is_bpe else UNK_TOKEN
        return cls([unknown if UNK_TOKEN_PTN.match(label) else label for label in labels], is_bpe)

    def dumps(self) -> str:
        """The alphabet as JSON, as in ``alphabet.json``."""
        return json.dumps({"labels": self._labels, "is_bpe": self._is_bpe})

    @classmethod
    def loads(cls, s: str) -> Alphabet:
        """The alphabet of :meth:`dumps`.

        Args:
            s: JSON.

        Raises:
            ValueError: it is no such alphabet.
        """
        try:
            value = json.loads(s)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected JSON: {error}") from None
        if not isinstance(value, dict) or set(value) != _KEYS:
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"expected an object of labels and is_bpe, received {found!s:.80}")
        try:
            return cls(value["labels"], value["is_bpe"])
        except TypeError as error:
            raise ValueError(f"expected a list of labels and whether they are subwords: {error}") from None


def verify_alphabet_coverage(alphabet: Alphabet, unigrams: Collection[str]) -> None:
    """Warn if many letters of these words are in no label.

    Args:
        alphabet: the labels.
        unigrams: the words.

    Warns:
        UserWarning: more than a fifth of the words' different letters.
    """
    letters = set("".join(unigrams))
    missing = letters - set("".join(alphabet.labels))
    if len(missing) > (1 - _COVERED) * len(letters):
        some = ", ".join(map(repr, sorted(missing)[:5]))
        warn(f"unigrams: {len(missing)} of {len(letters)} different letters are in no label: {some} …")


def _marked(label: str) -> str:
    """A wordpiece with "▁" where a word begins, instead of "##" where it goes on."""
    if label.startswith(WORDPIECE_MARK):
        return label.removeprefix(WORDPIECE_MARK)
    own = not label or label in (BPE_TOKEN, UNK_BPE_TOKEN) or SPECIAL_TOKEN_PTN.match(label)
    return label if own else BPE_TOKEN + label


def _as_labels(labels: Iterable[str]) -> list[str]:
    found = labels if isinstance(labels, str) else list(labels)
    if isinstance(found, str) or not all(isinstance(label, str) for label in found):
        raise TypeError(f"labels: expected strings, received {found!r:.80}")
    return found
