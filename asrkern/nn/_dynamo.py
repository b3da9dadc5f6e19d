"""Lets torch.compile trace :class:`asrkern.nn.GRU` and :class:`asrkern.nn.LSTM`.

TorchDynamo refuses every instance of torch's recurrent layers, and of subclasses that override forward, unless
``torch._dynamo.config.allow_rnn`` is set. This changes the flag's default, since values are kept per thread. Importing
TorchDynamo takes longer than importing torch, so the change waits until somebody else imports it. It affects the whole
process; so it happens when the first such layer is made, not before.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAME = "torch._dynamo"


def _set_default(dynamo: ModuleType) -> None:
    dynamo.config._config["allow_rnn"].default = True
    if not dynamo.config.allow_rnn:
        # torch.export sets flags for a while. It sets this one back to a value of its own, not to the default.
        dynamo.config.allow_rnn = True


class _AtImport(MetaPathFinder):
    """A finder that finds nothing itself. It wraps the loader of TorchDynamo, and leaves sys.meta_path afterwards."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != _NAME:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            # Whoever asks for the spec need not import the module.
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _set_default(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@functools.cache
def allow_rnn() -> None:
    """Let TorchDynamo trace modules that derive from torch.nn.GRU, LSTM and RNN."""
    if _NAME in sys.modules:
        _set_default(sys.modules[_NAME])
    else:
        sys.meta_path.insert(0, _AtImport())
