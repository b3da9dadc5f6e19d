"""Kernels for speech recognition: operations, drop-in layers, models and decoders.

:mod:`asrkern.ops` functions, :mod:`asrkern.nn` layers, :mod:`asrkern.models` recognisers, :mod:`asrkern.decoder`
decoders, :mod:`asrkern.data` audio and features. ``python -m asrkern`` prints what is active on this machine.
"""

from importlib.metadata import version as _version

from asrkern import ops

__version__ = _version("asrkern")
__all__ = ["__version__", "ops"]
