"""What labels do to words: which is the blank, which is a space, and which begin words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from asrkern.decoder._scores import as_blank
from asrkern.decoder._warn import warn

INSIDE_WORD, ENDS_WORD, BEGINS_WORD = 0, 1, 2
WORD_MARK, WORDPIECE_MARK = "▁", "##"
_LONGEST_LABEL = 1000
_SPECIAL = re.compile(r"[<\[].+[>\]]")
# Names of the blank: pyctcdecode's, and those of k2 and other descendants of Kaldi, ESPnet and NeMo. Hugging Face's
# blank is the padding.
_BLANK = re.compile(r"(?:[<\[](?:blk|blank|eps|ctc_?blank)[>\]])?", re.IGNORECASE)
_PADDING = re.compile(r"[<\[]pad[>\]]", re.IGNORECASE)
_UNKNOWN = re.compile(r"[<\[]unk[>\]]", re.IGNORECASE)
_SPACE = re.compile(r"[<\[]space[>\]]", re.IGNORECASE)
# Pieces of sentencepiece's byte_fallback, for letters that no other piece has.
BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
_SPACES = re.compile(r"[ \t-\r]+")
# What the error handler surrogateescape makes of bytes.
_NO_LETTERS = dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd")


class Tokens(NamedTuple):
    """The labels and what they do.

    labels: the text of each token; kinds: what each does to words; texts: what each adds to its word; joiner: the text
    between words; blank: the index of the blank; has_bytes: some texts are bytes of letters, surrogates as of the error
    handler surrogateescape; need_reading: words are what :func:`as_read` makes of their tokens' texts.
    """

    labels: list[str]
    kinds: list[int]
    texts: list[str]
    joiner: str
    blank: int
    has_bytes: bool
    need_reading: bool


def as_read(text: str) -> str:
    """What bytes and spaces of tokens show: letters in UTF-8, and single spaces between words.

    Each byte of no letter becomes U+FFFD, as in sentencepiece.
    """
    letters = utf8(text).decode(errors="surrogateescape").translate(_NO_LETTERS)
    return _SPACES.sub(" ", letters).strip(" ")


def utf8(text: str) -> bytes:
    """A text in UTF-8, with the bytes that are surrogates in it as they are."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # a surrogate of another kind, which no text from a file has
        return text.encode(errors="surrogatepass")


def read_tokens(labels: Sequence[str], blank: int | None, space: str | None, one_word: bool) -> Tokens:
    """What each label does to words.

    Labels that begin with "▁" begin words; others in them are spaces, as of sentencepiece with split_by_whitespace=False.
    If any begins with "##", those without it begin words. Else ``space`` stands between words (None:
    :func:`find_space`; "": no label does). With none of these each label is a word, or, with ``one_word``, all labels
    together spell one. A label that is there twice is two tokens. If all of sentencepiece's 256 pieces of bytes are
    there, they spell letters.

    Raises:
        TypeError: a label is not a string.
        ValueError: no labels, blank out of range or unknown, a space that is no label, or marks of words behind words.
    """
    labels = list(labels)
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"labels: expected strings, received {type(label).__name__}")
    if not labels:
        raise ValueError("labels: expected at least one, received none")
    longest = max(labels, key=len)
    if len(longest) > _LONGEST_LABEL:
        raise ValueError(f"labels: expected at most {_LONGEST_LABEL} letters each, received {len(longest)}")
    blank = _find_blank(labels) if blank is None else as_blank(blank, len(labels))
    others = [label for index, label in enumerate(labels) if index != blank]
    if space and space not in others:
        raise ValueError(f"space: expected a label other than blank, received {space!r}")
    marked = space is None and any(label.startswith(WORD_MARK) for label in others)
    if space is None:
        _check_marks(others)
    pieces = space is None and not marked and any(map(_goes_on, others))
    if space is None and not marked and not pieces:
        space = find_space(others)
    has_bytes = BYTES.keys() <= set(others)
    kinds, texts = [], []
    for index, label in enumerate(labels):
        kind, text = INSIDE_WORD, label
        if index == blank:
            text = "\0"  # a character that no word has
        elif has_bytes and label in BYTES:
            text = bytes([BYTES[label]]).decode(errors="surrogateescape")
        elif marked:
            text = label.lstrip(WORD_MARK).replace(WORD_MARK, " ")
            if label.startswith(WORD_MARK):
                kind = BEGINS_WORD if text else ENDS_WORD
        elif pieces and _goes_on(label):
            text = label.removeprefix(WORDPIECE_MARK)
        elif pieces:
            kind = INSIDE_WORD if _SPECIAL.fullmatch(label) else BEGINS_WORD
        elif space and label == space:
            kind, text = ENDS_WORD, ""
        elif not marked and not space and not one_word:
            kind = BEGINS_WORD
        kinds.append(kind)
        texts.append(text)
    joiner = " " if marked or pieces or space else ""
    need_reading = has_bytes or any(" " in text for text in texts)
    return Tokens(labels, kinds, texts, joiner, blank, has_bytes, need_reading)


def _goes_on(label: str) -> bool:
    return label.startswith(WORDPIECE_MARK) and label != WORDPIECE_MARK


def _check_marks(labels: list[str]) -> None:
    """Raise ValueError if marks of words stand only behind them."""
    ends = [label for label in labels if label.endswith(WORD_MARK) and label.strip(WORD_MARK)]
    if ends and not any(label.startswith(WORD_MARK) and label != WORD_MARK for label in labels):
        raise ValueError(
            f"labels: expected {WORD_MARK!r} before words, received it only behind them, such as {ends[0]!r}, as "
            "sentencepiece's treat_whitespace_as_suffix makes them"
        )


def _find_blank(labels: list[str]) -> int:
    """The index of the blank.

    It is the one label named "", <blk>, <blank> or <eps>; else the one named <pad> (also in other brackets and
    capitals); else, among letters, the one "_"; else the first label.

    Raises:
        ValueError: several labels may be it; or the first is a space, begins a word or stands for unknown words.
    """
    named = [[i for i, label in enumerate(labels) if name.fullmatch(label)] for name in (_BLANK, _PADDING)]
    # fairseq's order, in which <s> is the blank. In other projects the padding has been second, too.
    if not named[0] and labels[:2] == ["<s>", "<pad>"]:
        named[0] = [0, 1]
    found = named[0] or named[1]
    if not found and not any(label.startswith((WORD_MARK, WORDPIECE_MARK)) for label in labels):
        found = [i for i, label in enumerate(labels) if label == "_" or (i == 0 and label == "-")]
    if len(found) > 1:
        several = ", ".join(f"{labels[i]!r} ({i})" for i in found[:10])
        raise ValueError(f"blank: expected the index of the blank, since several labels may be it: {several}")
    if found:
        return found[0]
    first = labels[0]
    if _cannot_be_blank(first):
        raise ValueError(
            f"blank: expected the index of the blank, since no label is named as one and the first is {first!r}; if "
            "it comes after the labels, as in NeMo's models, add '<blank>' to them"
        )
    if first.isalnum() and first.lower() != "blank":
        warn(
            f"blank: the first label, {first!r}, is taken for it, since none is named as one; give blank=0 if it is"
        )
    return 0


def lacks_blank(labels: Sequence[str]) -> bool:
    """Whether the blank comes after these labels, as in NeMo's models: none is named as one, and the first cannot be it."""
    named = any(name.fullmatch(label) for label in labels for name in (_BLANK, _PADDING, re.compile("_")))
    return bool(labels) and not named and _cannot_be_blank(labels[0])


def _cannot_be_blank(label: str) -> bool:
    """Whether a label is a space, begins a word or stands for unknown words."""
    return bool(
        not label.strip(" |")
        or label.startswith(WORD_MARK)
        or _SPACE.fullmatch(label)
        or _UNKNOWN.fullmatch(label)
    )


def find_space(others: list[str]) -> str | None:
    """The label between words, of the labels without blank: " ", <space>, or "|"; None if there is none.

    If all labels are consecutive characters, "|" is an ordinary label: NeMo writes subwords so for its language models.
    """
    if " " in others:
        return " "
    named = next(filter(_SPACE.fullmatch, others), None)
    if named is not None or "|" not in others:
        return named
    encoded = "{" in others and _consecutive(others)
    return None if encoded else "|"


def _consecutive(labels: list[str]) -> bool:
    return all(len(label) == 1 for label in labels) and len({ord(c) - i for i, c in enumerate(labels)}) == 1
