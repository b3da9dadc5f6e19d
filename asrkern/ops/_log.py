"""``ASRKERN_LOG=ops``: a line on standard error for each call of an operation, with its tensors' shapes and dtypes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

_Call = TypeVar("_Call", bound=Callable[..., Any])


def logged(call: _Call) -> _Call:
    """``call(name, *args)`` of an operation, which says so before, or itself without ASRKERN_LOG: then it costs nothing.

    Raises:
        RuntimeError: ASRKERN_LOG is something else.
    """
    switch = os.environ.get("ASRKERN_LOG", "")
    if switch not in ("", "ops"):
        raise RuntimeError(f"ASRKERN_LOG: expected ops, received {switch}")
    if not switch:
        return call

    @functools.wraps(call)
    def log_and_call(name: str, *args: Any, **named: Any) -> Any:
        # A trace is not a call.
        if not torch.compiler.is_compiling():
            print(f"asrkern.{name}({_in_words(name, args, named)})", file=sys.stderr, flush=True)
        return call(name, *args, **named)

    return log_and_call  # type: ignore[return-value]  # functools.wraps keeps the signature


def _in_words(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Arguments by the schema's names, without those that are None."""
    names = [argument.name for argument in getattr(torch.ops.asrkern, name).default._schema.arguments]
    given = {**dict(zip(names, args)), **named}
    return ", ".join(f"{key}={_value(value)}" for key, value in given.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype}{list(value.shape)}" + f" on {value.device}" * (value.device.type != "cpu")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)
