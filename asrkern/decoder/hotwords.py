"""Files of hotwords."""

from __future__ import annotations

import os
import re
from pathlib import Path

from asrkern.decoder._files import about
from asrkern.decoder._tokens import WORD_MARK
from asrkern.decoder.labels import fields

# The keyword spotter's files have its threshold and the name that it shows after the weight.
_SHERPA_WEIGHT = re.compile(r"(.*\S)[ ]+:(\S+)(?:[ ]+#[0-9.]+)?(?:[ ]+@\S+)?\s*")


def read_hotwords(path: str | os.PathLike[str], weight: float = 10.0) -> dict[str, float]:
    """The hotwords of a file and their weights, as :class:`asrkern.decoder.CTCBeamDecoder` takes them.

    A line has a word or phrase and, after a tab, or after a space and a colon as in sherpa-onnx's files, a weight of its
    own: ``new york :2.0``. What the files of its keyword spotter have after that, ``#0.6 @NEW_YORK``, means nothing here. A
    phrase in sentencepiece's pieces is joined.

    Args:
        path: the file.
        weight: of hotwords without their own, in nats.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not UTF-8, or has a weight that is no number.
    """
    with about(path):
        hotwords = {}
        for line in filter(fields, Path(path).read_text(encoding="utf-8-sig").split("\n")):
            phrase, tab, own = line.partition("\t")
            if not tab and (found := _SHERPA_WEIGHT.fullmatch(line)):
                phrase, own = found.groups()
            if WORD_MARK in phrase:
                phrase = "".join(fields(phrase)).replace(WORD_MARK, " ").strip()
            try:
                hotwords[phrase] = float(own) if own else weight
            except ValueError:
                raise ValueError(f"expected a number after the tab or colon, received {line!r}") from None
        return hotwords
