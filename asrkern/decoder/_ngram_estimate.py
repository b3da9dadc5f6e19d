"""The Python side of Kneser-Ney estimation: reading text, showing progress, writing ARPA files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from asrkern import _decoder
from asrkern._atomic_write import atomic_write
from asrkern.decoder._files import about, read_chunks

Progress = Callable[[str, int, int | None], None]
Tokenize = Callable[[str], Iterable[str]]

BOS, EOS = 1, 2
DEFAULT_FALLBACK = (0.5, 1.0, 1.5)
# kernels/lm/arpa.cpp reads it.
UNIT_COMMENT = b"# asrkern: unit="
_LINES_PER_WRITE = 1 << 16
_LINES_PER_REPORT = 1 << 12


@dataclass(frozen=True)
class Estimate:
    """An estimated model.

    strings: the words by id, each with a line feed; orders: for each order from 1, (words [count, order] int32, log10
    probabilities [count], log10 back-off weights [count]).
    """

    strings: bytes
    orders: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    def to_arpa(self, path: str | os.PathLike[str], unit: str = "word") -> None:
        """unit: of the words. Where they are tokens, a comment says so, which KenLM passes over."""
        compressed = os.fspath(path).endswith(".gz")
        with (
            atomic_write(path) as temporary,
            gzip.open(temporary, "wb", compresslevel=6) if compressed else open(temporary, "wb") as file,
        ):
            if unit == "token":
                file.write(UNIT_COMMENT + unit.encode() + b"\n")
            file.write(b"\\data\\\n")
            for order, (_, log_probs, _) in enumerate(self.orders, 1):
                file.write(b"ngram %d=%d\n" % (order, len(log_probs)))
            for order, (words, log_probs, backoffs) in enumerate(self.orders, 1):
                file.write(b"\n\\%d-grams:\n" % order)
                weights = backoffs if order < len(self.orders) else None
                for begin in range(0, len(log_probs), _LINES_PER_WRITE):
                    end = min(begin + _LINES_PER_WRITE, len(log_probs))
                    file.write(_decoder.format_ngrams(self.strings, words, log_probs, weights, begin, end))
            file.write(b"\n\\end\\\n")


def read_sentences(
    path: os.PathLike[str],
    tokenize: Tokenize | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[str]:
    """The lines of a file, plain or compressed; with ``tokenize`` as tokens with spaces between."""

    def sentence(line: bytes) -> str:
        text = line.decode(errors="replace")
        return " ".join(tokenize(text)) if tokenize else text

    rest = b""
    for chunk in read_chunks(path, progress):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(sentence, lines)
    if rest:
        yield sentence(rest)


def _read_text(
    estimator: _decoder.KneserNey,
    item: str | os.PathLike[str],
    tokenize: Tokenize | None,
    progress: Progress | None,
) -> None:
    if isinstance(item, os.PathLike):
        estimator.begin_text()
    if isinstance(item, str) and tokenize:
        for line in item.removesuffix("\n").split("\n"):
            estimator.feed(" ".join(tokenize(line)).encode(errors="surrogateescape") + b"\n")
    elif isinstance(item, os.PathLike) and tokenize:
        stage = f"reading {os.path.basename(item)}"
        with about(item):
            for line in read_sentences(
                item, tokenize, progress and (lambda done, size: progress(stage, done, size))
            ):
                estimator.feed(line.encode(errors="surrogateescape") + b"\n")
    elif isinstance(item, str):
        # surrogateescape: Python stores bytes that are not UTF-8 so, in sys.stdin or in names of files.
        estimator.feed(item.encode(errors="surrogateescape") + b"\n" * (not item.endswith("\n")))
    elif isinstance(item, os.PathLike):
        stage = f"reading {os.path.basename(item)}"
        last = b"\n"
        with about(item):
            for last in read_chunks(item, progress and (lambda done, size: progress(stage, done, size))):
                estimator.feed(last)
        if not last.endswith(b"\n"):
            estimator.feed(b"\n")
    else:
        raise TypeError(f"text: expected strings and Paths, received {type(item).__name__}")


def _check_order(order: int) -> None:
    if not isinstance(order, Integral) or isinstance(order, bool):
        raise TypeError(f"order: expected an integer, received {order!r}")
    if not 1 <= order <= _decoder.MAX_ORDER:
        raise ValueError(f"order: expected 1 to {_decoder.MAX_ORDER}, received {order}")


def _check_prune(prune: Sequence[int], order: int) -> list[int]:
    if not isinstance(prune, Iterable) or not all(isinstance(value, Integral) for value in prune):
        raise TypeError(f"prune: expected a sequence of integers, received {prune!r}")
    thresholds = [int(value) for value in prune]
    if not 1 <= len(thresholds) <= order:
        raise ValueError(f"prune: expected 1 to {order} thresholds, received {len(thresholds)}")
    thresholds += thresholds[-1:] * (order - len(thresholds))
    if thresholds[0] != 0 or thresholds != sorted(thresholds) or thresholds[-1] >= 1 << 31:
        raise ValueError(
            f"prune: expected 0 first and no decreasing thresholds below 2^31, received {tuple(prune)}"
        )
    return thresholds


def _check_fallback(fallback: bool | Sequence[float]) -> tuple[float, ...] | None:
    if isinstance(fallback, bool):
        return DEFAULT_FALLBACK if fallback else None
    if not isinstance(fallback, Iterable) or not all(isinstance(value, Real) for value in fallback):
        raise TypeError(f"discount_fallback: expected True, False or three numbers, received {fallback!r}")
    discounts = tuple(float(value) for value in fallback)
    if len(discounts) != 3 or not all(0 <= value <= k for k, value in enumerate(discounts, 1)):
        raise ValueError(
            f"discount_fallback: expected three discounts between 0 and 1, 2 and 3, received {discounts}"
        )
    return discounts


def estimate(
    text: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    order: int,
    prune: Sequence[int],
    discount_fallback: bool | Sequence[float],
    characters: bool,
    space: str,
    tokenize: Tokenize | None,
    progress: Progress | None,
) -> Estimate:
    """See :meth:`asrkern.decoder.NGramLM.estimate`."""
    _check_order(order)
    thresholds, fallback = _check_prune(prune, order), _check_fallback(discount_fallback)
    if isinstance(text, str | os.PathLike):
        text = [Path(text)]
    elif not isinstance(text, Iterable):
        raise TypeError(f"text: expected a path, or strings and Paths, received {text!r}")
    estimator = _decoder.KneserNey(order, characters, space)
    for number, item in enumerate(text, 1):
        _read_text(estimator, item, tokenize, progress)
        if progress and number % _LINES_PER_REPORT == 0:
            progress("reading", number, None)
    estimator.finish(thresholds, fallback)
    for n in range(1, order + 1):
        estimator.estimate(n)
        if progress:
            progress("estimating", n, order)
    return Estimate(estimator.strings(), [estimator.ngrams(n) for n in range(1, order + 1)])
