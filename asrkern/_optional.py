"""Packages that some parts need and others must do without."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


def require(package: str, extra: str) -> ModuleType:
    """A package of one of asrkern's extras, or a module of it.

    Raises:
        ImportError: it is missing; the message says what to install.
    """
    name = package.partition(".")[0]
    if importlib.util.find_spec(name) is None:
        raise ImportError(f"{name} is not installed: pip install 'asrkern[{extra}]'")
    return importlib.import_module(package)
