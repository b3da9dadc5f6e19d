"""Label files: the texts of a model's tokens in the order of its outputs, as the tools that train models write them."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from asrkern._optional import require
from asrkern.decoder._files import about
from asrkern.decoder._tokens import WORDPIECE_MARK, lacks_blank

# The token of the space may be missing before its number.
_NUMBERED = re.compile(r"(.*?)([ \t]+)(-?\d+(?:\.\d+)?(?:e-?\d+)?)[ \t]*", re.ASCII)
_KOSPEECH = "id,char"
_FIELD = re.compile(r"[^ \t\n\v\f\r]+")
_EXPECTED_JSON = "expected a list of strings, or an object of labels and their indices"
# fairseq puts these before the tokens of every dictionary. Its CTC models use the first, <s>, as blank.
_FAIRSEQ = ("<blank>", "<pad>", "</s>", "<unk>")


def fields(line: str) -> list[str]:
    """Fields between white space. A no-break space and its like are letters, as for the tools that write such files."""
    return _FIELD.findall(line)


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """The labels of a file, one for each output of the model.

    A file whose name ends in ``.json`` holds

    - a list of labels (deepspeech.pytorch's ``labels.json``), alone or as ``labels`` (pyctcdecode's ``alphabet.json``);
    - or an object of labels and their indices (Hugging Face's ``vocab.json``).

    Any other holds a line for each label:

    - the label, perhaps with "##" before those that continue a word (``vocab.txt`` of wordpieces and of NeMo; NeMo's
      sentencepiece models have one more piece, the first: ``tokenizer.vocab`` has all of them);
    - the label and its index, in any order (``tokens.txt`` and ``units.txt`` of icefall, sherpa and wenet). A line
      without a label is the space's. The symbols "#0", "#1" … at the end are left out, since no model emits them;
    - the label and how often it occurs, the most frequent first (``dict.txt`` of fairseq). Before them come the four
      labels that fairseq adds. The first, "<s>", is the blank of its CTC models and is called "<blank>" here;
    - the label, a tab, and its score, at most 0 (sentencepiece's ``.vocab``);
    - or KoSpeech's table with the heading ``id,char,freq``.

    :class:`asrkern.decoder.CTCBeamDecoder` says which label it takes for the blank. NeMo's models have it behind the
    labels: append "<blank>" to these.

    Args:
        path: the file, whose name decides only whether it is JSON.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is none of these files, is not UTF-8, or has no labels. The message names the file.
    """
    with about(path):
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"expected UTF-8 text: {error}") from None
        labels = _of_json(text) if os.fspath(path).endswith(".json") else _of_lines(text)
        if not any(labels):
            raise ValueError("expected one label a line, received none")
        if any("\0" in label for label in labels):
            raise ValueError("expected text, received a label with NUL")
        return labels


def read_tokens_of_model(path: str | os.PathLike[str], blank: int | None = None) -> list[str]:
    """The labels of a file and, if they lack the blank, ``<blank>`` behind them, as NeMo's models have it.

    Args:
        path: a file of :func:`read_labels`, or a sentencepiece model (``.model``).
        blank: the blank's index, if it is known: then none is added.

    Raises:
        ImportError: it is a sentencepiece model, and sentencepiece is not installed.
        OSError, ValueError: as :func:`read_labels`.
    """
    if os.fspath(path).endswith(".model"):
        labels = _of_sentencepiece(path)
    else:
        labels = read_labels(path)
    return [*labels, "<blank>"] if blank is None and lacks_blank(labels) else labels


def read_tokenizer(path: str | os.PathLike[str]) -> Callable[[str], list[str]]:
    """What splits a line of text into a model's labels, for :meth:`asrkern.decoder.NGramLM.estimate`.

    Args:
        path: a sentencepiece model (``.model``); or a vocabulary of wordpieces, with "##" before those that go on: then
            each word is split from its beginning, the longest piece first (Devlin et al. 2019).

    Returns:
        A function of a text that gives its tokens. Characters that no sentencepiece has, and words that wordpieces
        cannot spell, stay as they are.

    Raises:
        ImportError: a sentencepiece model, and sentencepiece is not installed.
        OSError: the file cannot be opened.
        ValueError: it is neither; the message names the file.
    """
    if os.fspath(path).endswith(".model"):
        model = _open_sentencepiece(path)
        return lambda text: model.encode(
            text.encode(errors="surrogateescape").decode(errors="replace"), out_type=str
        )
    pieces = frozenset(read_labels(path))
    if not any(piece.startswith(WORDPIECE_MARK) and piece != WORDPIECE_MARK for piece in pieces):
        raise ValueError(
            f"{os.fspath(path)}: expected a sentencepiece model (.model), or wordpieces of which some begin with "
            f"{WORDPIECE_MARK!r}, received labels without: they do not say how text is split into them"
        )
    longest = max(map(len, pieces))
    return lambda text: [piece for word in fields(text) for piece in _wordpieces(word, pieces, longest)]


def _wordpieces(word: str, pieces: Set[str], longest: int) -> list[str]:
    """The word's pieces, or the word itself if it has none."""
    found: list[str] = []
    begin = 0
    while begin < len(word):
        mark = WORDPIECE_MARK if begin else ""
        ends = range(min(len(word), begin + longest - len(mark)), begin, -1)
        end = next((end for end in ends if mark + word[begin:end] in pieces), None)
        if end is None:
            return [word]
        found.append(mark + word[begin:end])
        begin = end
    return found


def _open_sentencepiece(path: str | os.PathLike[str]) -> Any:
    package = require("sentencepiece", "sentencepiece")
    with about(path):
        content = Path(path).read_bytes()
        if not content:
            # sentencepiece takes it for no model at all, and fails when it is used.
            raise ValueError("expected a sentencepiece model, received an empty file")
        try:
            return package.SentencePieceProcessor(model_proto=content)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"expected a sentencepiece model: {error}") from None


def _of_sentencepiece(path: str | os.PathLike[str]) -> list[str]:
    model = _open_sentencepiece(path)
    return [model.id_to_piece(index) for index in range(model.get_piece_size())]


def _of_json(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("labels"), list):
        value = value["labels"]
    if isinstance(value, dict) and value and all(type(index) is int for index in value.values()):
        return _by_index(list(value), list(value.values()), f"{_EXPECTED_JSON} in")
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        received = f"an object with {_first(value)}" if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{_EXPECTED_JSON}, received {received}")
    return value


def _first(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name!r}: {json.dumps(value[name])[:40]}" for name in list(value)[:2]) or "nothing"


def _of_lines(text: str) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    if lines[0].startswith(_KOSPEECH):
        try:
            return [row[1] for row in list(csv.reader(lines))[1:] if len(row) > 1]
        except csv.Error as error:
            raise ValueError(f"expected a table in CSV: {error}") from None
    rows = [_NUMBERED.fullmatch(line) for line in lines if line]
    if not any(rows):
        for number, line in enumerate(lines, 1):
            if len(fields(line)) > 1:
                raise ValueError(f"line {number}: expected a label without white space, received {line!r}")
        return lines
    for number, line in enumerate(lines, 1):
        if line and not _NUMBERED.fullmatch(line):
            raise ValueError(
                f"line {number}: expected a label and a number as in other lines, received {line!r}"
            )
    labels, gaps, numbers = zip(*(row.groups() for row in rows if row))
    return _of_table([label or " " for label in labels], gaps, numbers)


def _of_table(labels: list[str], gaps: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """Labels of a table, told by what stands after them: an index, a score or a count."""
    whole = [int(number) for number in numbers if number.lstrip("-").isdigit()]
    if len(whole) == len(labels) and sorted(whole) == list(range(len(labels))):
        return _without_disambiguation([label for _, label in sorted(zip(whole, labels))])
    if all(gap == "\t" for gap in gaps) and all(float(number) <= 0 for number in numbers):
        return labels
    if len(whole) == len(labels) and min(whole) >= 0 and whole == sorted(whole, reverse=True):
        return [*_FAIRSEQ, *labels]
    if len(whole) < len(labels) or min(whole) < 0:
        raise ValueError(
            "expected labels with indices, with counts (fairseq's), or with a tab and a score of at most 0 "
            f"(sentencepiece's), received {labels[0]!r} with {numbers[0]}"
        )
    return _by_index(
        labels, whole, "expected labels and counts, the largest first (fairseq's), or the indices"
    )


def _by_index(labels: list[str], indices: list[int], expected: str) -> list[str]:
    """Labels in the order of their indices. ValueError unless these are 0, 1 … in any order."""
    label_of = dict(zip(indices, labels))
    missing = next((index for index in range(len(labels)) if index not in label_of), None)
    if missing is not None:
        raise ValueError(
            f"{expected} 0 to {len(labels) - 1}, each once, received none with {missing}: add what the model has there, "
            "such as its blank"
        )
    return [label_of[index] for index in range(len(labels))]


def _without_disambiguation(labels: list[str]) -> list[str]:
    """Labels without those by which k2's graphs tell words of equal spelling apart."""
    first = labels.index("#0") if "#0" in labels else len(labels)
    numbered = [f"#{i}" for i in range(len(labels) - first)]
    return labels[:first] if labels[first:] == numbered else labels
