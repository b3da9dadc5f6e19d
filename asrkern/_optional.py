"""Packages that some parts need and others must do without."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
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


def folder_of(package: str, extra: str) -> Path:
    """Where the files of a package of one of asrkern's extras are, without importing it.

    Raises:
        ImportError: it is missing; the message says what to install.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(_missing(package, extra))
    return Path(spec.submodule_search_locations[0])


# What the packages of asrkern import of each extra's; tests/test_optional.py compares with pyproject.toml.
EXTRAS = {
    "cli": ("typer", "rich"),
    "lm": ("safetensors",),
    "recognizer": ("safetensors", "pydantic"),
    "serve": ("starlette", "uvicorn", "websockets", "python_multipart"),
    "train": ("lightning", "lhotse", "rapidfuzz", "pydantic", "safetensors", "matplotlib", "tensorboard"),
    "sentencepiece": ("sentencepiece",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "av": ("av",),
    "vad": ("silero_vad", "onnxruntime"),
    "hf": ("huggingface_hub",),
    "parquet": ("pyarrow",),
    "ray": ("ray",),
}
# Package → the first extra that has it.
EXTRA_OF = {
    package: next(extra for extra, theirs in EXTRAS.items() if package in theirs)
    for packages in EXTRAS.values()
    for package in packages
}


def needs(extra: str) -> None:
    """Raises ImportError, which says what to install, unless all packages of an extra are there."""
    for package in EXTRAS[extra]:
        if importlib.util.find_spec(package) is None:
            raise ImportError(_missing(package, extra))


def _missing(package: str, extra: str) -> str:
    return f"{package} is not installed: {install(extra)}"


def install(extra: str) -> str:
    """The command that installs an extra's packages."""
    return f"pip install 'asrkern[{extra}]'"
