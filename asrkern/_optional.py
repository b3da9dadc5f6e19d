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
        raise ImportError(_missing(name, extra))
    return importlib.import_module(package)


# What the packages of asrkern import of each extra's; tests/test_optional.py compares with pyproject.toml.
EXTRAS = {
    "cli": ("typer", "rich"),
    "recognizer": ("safetensors", "pydantic"),
    "serve": ("starlette", "uvicorn", "websockets", "python_multipart"),
    "train": ("lightning", "lhotse", "rapidfuzz", "pydantic", "safetensors", "matplotlib", "tensorboard"),
}


def needs(extra: str) -> None:
    """Raises ImportError, which says what to install, unless all packages of an extra are there."""
    for package in EXTRAS[extra]:
        if importlib.util.find_spec(package) is None:
            raise ImportError(_missing(package, extra))


def _missing(package: str, extra: str) -> str:
    return f"{package} is not installed: pip install 'asrkern[{extra}]'"
