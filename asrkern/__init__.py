"""Kernels for speech recognition: operations, drop-in layers, models and decoders.

:mod:`asrkern.ops` functions, :mod:`asrkern.nn` layers, :mod:`asrkern.models` models, :mod:`asrkern.decoder` decoders,
:mod:`asrkern.data` audio and features, :mod:`asrkern.recognizer` trained models. ``python -m asrkern`` prints what is
active on this machine.

Threads are torch's: ``torch.set_num_threads``, OMP_NUM_THREADS. The commands and :func:`load` follow ASRKERN_THREADS, or
a container's CPU quota. Where other processes want the CPUs, too, set OMP_WAIT_POLICY=passive before torch is imported:
otherwise the idle threads of torch's own operations spin. The commands do that by themselves.
"""

import importlib as _importlib
from typing import TYPE_CHECKING, Any

from asrkern import _optional, _threads

if TYPE_CHECKING:
    from asrkern import corpus as corpus
    from asrkern import data as data
    from asrkern import decoder as decoder
    from asrkern import models as models
    from asrkern import nn as nn
    from asrkern import onnx as onnx
    from asrkern import ops as ops
    from asrkern import recognizer as recognizer
    from asrkern import reference as reference
    from asrkern import serve as serve
    from asrkern import training as training
    from asrkern.recognizer import Recognizer

    __version__: str

__all__ = ["__version__", "load", "ops"]
_PARTS = (
    "corpus",
    "data",
    "decoder",
    "models",
    "nn",
    "onnx",
    "ops",
    "recognizer",
    "reference",
    "serve",
    "training",
)

if _threads.is_command():
    # Before torch is imported; help and wrong usage do without it.
    _threads.prepare_command()
else:
    # Registers the operations, which exported models ask torch for.
    _importlib.import_module("asrkern.ops")


def __getattr__(name: str) -> Any:
    """The parts and the version, imported and read when they are first asked for."""
    if name in _PARTS:
        return _importlib.import_module(f"asrkern.{name}")
    if name == "__version__":
        # It takes 20 ms, which help and wrong usage do without.
        globals()[name] = _importlib.import_module("importlib.metadata").version("asrkern")
        return globals()[name]
    raise AttributeError(f"module 'asrkern' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})


def load(path: Any, tokens: Any = None, features: Any = None, *, verify: bool = True) -> "Recognizer":
    """Read a checkpoint of ``asrkern train`` or ``asrkern convert``, or a CTC model in an ONNX file.

    From then on torch uses no more threads than ASRKERN_THREADS or the CPU quota of the container says, which is logged.

    Args:
        path: of the file, str or path-like.
        tokens: of an ONNX model, the file of its labels, str or path-like.
        features: of an ONNX model, :class:`asrkern.recognizer.FeatureSettings` in place of what the file says.
        verify: whether a checkpoint's checksums are compared; see :func:`asrkern.recognizer.load`.

    Returns:
        A :class:`asrkern.recognizer.Recognizer`, its model in fp32 on the CPU, in eval mode.

    Raises:
        ImportError: the extra ``recognizer`` is not installed, or for an ONNX model ``onnx``; the message says how.
        OSError, ValueError: as :func:`asrkern.recognizer.load`.
    """
    _optional.needs("recognizer")
    from asrkern import recognizer

    # Before an ONNX model takes as many threads as torch.
    _threads.apply()
    return recognizer.load(path, tokens, features, verify=verify)
