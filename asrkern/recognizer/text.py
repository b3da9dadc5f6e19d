"""Normalisation of transcripts before they become tokens. It is explicit, and recorded in the checkpoint."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pydantic

from asrkern.recognizer._settings import Settings


class TextNormalization(Settings):
    """Changes to a transcript, in this order; white space becomes single spaces at the end.

    Attributes:
        unicode: Unicode normal form; in NFC and NFKC Korean syllables are single characters.
        case: of letters: "upper", "lower", or "keep".
        replace: strings and what takes their place, in the order given.
        remove: characters that are dropped; " " drops the spaces between words, for models without a space.

    Example:
        >>> TextNormalization(case="lower", replace={"&": " and "}, remove=".,")("Salt & pepper, please.")
        'salt and pepper please'
    """

    unicode: Literal["NFC", "NFD", "NFKC", "NFKD"] = "NFC"
    case: Literal["upper", "lower", "keep"] = "upper"
    replace: dict[str, str] = pydantic.Field(default_factory=dict)
    remove: str = ""

    def __call__(self, text: str) -> str:
        """The normalised text."""
        text = unicodedata.normalize(self.unicode, text)
        if self.case != "keep":
            text = text.upper() if self.case == "upper" else text.lower()
        for before, after in self.replace.items():
            text = text.replace(before, after)
        text = text.translate({ord(character): None for character in self.remove if character != " "})
        return ("" if " " in self.remove else " ").join(text.split())
