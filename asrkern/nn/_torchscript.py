"""What ``torch.jit.script`` says of layers that its compiler cannot read."""

from __future__ import annotations

import torch


def refuse(*layers: type) -> None:
    """Let torch.jit.script of these layers, and of models that have one, raise an error that names the way out.

    Otherwise torch stops somewhere inside, for a reason that does not name the layer.
    """
    for layer in layers:
        layer.__prepare_scriptable__ = _raise  # type: ignore[attr-defined]


def _raise(self: torch.nn.Module) -> torch.nn.Module:
    raise RuntimeError(
        f"asrkern.nn.{type(self).__name__}: torch.jit.script cannot compile it; torch.jit.trace and "
        "torch.export.export can take it, and asrkern.nn.revert puts torch's own layers back"
    )
