"""asrkern under the name pyctcdecode, for packages that import that."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder
from types import ModuleType
from typing import Any

_PACKAGE = "asrkern.decoder.compat.pyctcdecode"
_MODULES = ("", ".alphabet", ".constants", ".decoder", ".language_model")
_VERSIONS = {"pyctcdecode": "0.5.0", "kenlm": "0.3.0"}
# transformers asks for these once and keeps the answer.
_TRANSFORMERS = "transformers.utils.import_utils"
_PROCESSOR = "transformers.models.wav2vec2_with_lm.processing_wav2vec2_with_lm"


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
    """Says to importlib.metadata that the packages are installed, and mends transformers' processor as it is loaded."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PROCESSOR:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_mend(module: ModuleType) -> None:
                execute(module)
                _mend(module)

            spec.loader.exec_module = execute_and_mend  # type: ignore[method-assign]
        return spec

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterable[_Alias]:
        wanted = None if context is None else context.name
        return [_Alias(name) for name in sorted(self.names) if wanted in (None, name)]


_finder = _Finder()


def install_as_pyctcdecode() -> ModuleType:
    """Make ``import pyctcdecode`` find asrkern, in this process.

    ``Wav2Vec2ProcessorWithLM`` of transformers 4.5x and 5.x, its pipeline for speech recognition and whatever else imports
    pyctcdecode then search with asrkern. If KenLM's package is missing, ``import kenlm`` finds asrkern's reader of its
    models. Call it before a module that imports pyctcdecode at its top. A second call does nothing more.

    In transformers 5.25.0 ``Wav2Vec2ProcessorWithLM.from_pretrained`` calls a method that 5.25.0 has taken out of
    ``ProcessorMixin``: an AttributeError with any decoder. The method is put back.

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
    processor = sys.modules.get(_PROCESSOR)
    if _finder.names and processor is not None:
        _mend(processor)


def _mend(processor: ModuleType) -> None:
    """Put back the method of ProcessorMixin that Wav2Vec2ProcessorWithLM.from_pretrained calls, where it is missing."""
    mixin: Any = getattr(processor, "ProcessorMixin", None)
    if mixin is not None and not hasattr(mixin, "_get_arguments_from_pretrained"):
        mixin._get_arguments_from_pretrained = classmethod(_parts)


def _parts(cls: type, name: str, **options: Any) -> list[Any]:
    """The feature extractor and the tokenizer that are saved under a name."""
    from transformers import AutoFeatureExtractor, AutoTokenizer

    return [auto.from_pretrained(name, **options) for auto in (AutoFeatureExtractor, AutoTokenizer)]
