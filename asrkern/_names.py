"""Names that people mistype."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, names: Iterable[str]) -> str:
    """The names that resemble this one, as a message lists them; all of them if none does."""
    names = list(names)
    near = difflib.get_close_matches(str(name), names, n=3)
    return " or ".join(map(repr, near)) if near else "one of " + ", ".join(map(repr, names))
