"""asrkern under the name pyctcdecode, for packages that import that."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder
from types import ModuleType
from typing import Any

_PACKAGE = "asrkern.decoder.compat.pyctcdecode"
_MODULES = ("", ".alphabet", ".constants", ".decoder", ".language_model")
_VERSIONS = {"pyctcdecode": "0.5.0", "kenlm": "0.3.0"}
# transformers asks for these once and keeps the answer.
_TRANSFORMERS = "transformers.utils.import_utils"


class _Alias(Distribution):
    """The metadata of a package that is here under another's name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read_text(self, filename: str) -> str | None:
        if filename != "METADATA":
            return None
        return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: {_VERSIONS[self._name]}\n"

    def locate_file(self, path: Any) -> Any:
        raise FileNotFoundError(f"{path}: {self._name} is asrkern and has no files")


class _Finder(DistributionFinder):
    """Says to importlib.metadata that the packages are installed."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, *unused: Any, **also_unused: Any) -> None:
        return None

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterable[_Alias]:
        wanted = None if context is None else context.name
        return [_Alias(name) for name in sorted(self.names) if wanted in (None, name)]


_finder = _Finder()


def install_as_pyctcdecode() -> ModuleType:
    """Make ``import pyctcdecode`` find asrkern, in this process.

    An unmodified ``Wav2Vec2ProcessorWithLM`` of transformers 4.5x and 5.x, its pipeline for speech recognition and
    whatever else imports pyctcdecode then search with asrkern. If KenLM's package is missing, ``import kenlm`` finds
    asrkern's reader of its models. Call it before a module that imports pyctcdecode at its top. A second call does
    nothing more.

    Returns:
        What ``import pyctcdecode`` finds: ``asrkern.decoder.compat.pyctcdecode``.

    Raises:
        RuntimeError: the package pyctcdecode has been imported already.
    """
    package = importlib.import_module(_PACKAGE)
    if sys.modules.get("pyctcdecode", package) is not package:
        raise RuntimeError("pyctcdecode has been imported already; call install_as_pyctcdecode before that")
    for name in _MODULES:
        sys.modules[f"pyctcdecode{name}"] = importlib.import_module(_PACKAGE + name)
    _finder.names.add("pyctcdecode")
    if importlib.util.find_spec("kenlm") is None:
        sys.modules["kenlm"] = importlib.import_module("asrkern.decoder.compat._kenlm")
        _finder.names.add("kenlm")
    if _finder not in sys.meta_path:
        # Before the others: a package that is installed beside it is not the one that is imported.
        sys.meta_path.insert(0, _finder)
    _tell_transformers()
    return package


def _tell_transformers() -> None:
    """Correct what transformers has found out before."""
    known = sys.modules.get(_TRANSFORMERS)
    for name in _finder.names if known else ():
        check: Any = getattr(known, f"is_{name}_available", None)
        if hasattr(check, "cache_clear"):
            check.cache_clear()
        if getattr(known, f"_{name}_available", None) is False:
            setattr(known, f"_{name}_available", True)
