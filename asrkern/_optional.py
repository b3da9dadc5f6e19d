"""Packages that some parts need and others must do without."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch


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
    "train": ("lightning", "lhotse", "rapidfuzz", "pydantic", "safetensors", "matplotlib", "tensorboard"),
}


def needs(extra: str) -> None:
    """Raises ImportError, which says what to install, unless all packages of an extra are there."""
    for package in EXTRAS[extra]:
        if importlib.util.find_spec(package) is None:
            raise ImportError(_missing(package, extra))


def _missing(package: str, extra: str) -> str:
    return f"{package} is not installed: pip install 'asrkern[{extra}]'"


def import_torchaudio() -> ModuleType:
    """torchaudio; imported only here, since its wheel does not import beside every torch.

    Raises:
        ImportError: it is missing or cannot be imported; the message says what to do.
    """
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        raise ImportError("torchaudio is not installed: pip install torchaudio")
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError) as error:
        libraries = Path(spec.origin).parent / "lib" / "*.so"
        advice = (
            f"its wheel links CUDA libraries that torch {torch.__version__} lacks; its Python functions work "
            f"without its own, so remove them: rm {libraries}"
            if torch.version.cuda is None
            else "install the torchaudio that was made for this torch"
        )
        raise ImportError(f"torchaudio does not import beside torch {torch.__version__}: {advice}") from error
