"""How ``torch.fx`` records layers whose forward looks at shapes and lengths: as one node each, like torch's layers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.fx import Proxy

from asrkern.nn._hooks import has_hooks


def make_leaves(*layers: type[torch.nn.Module]) -> None:
    """Let any symbolic tracer record a call of these layers as one ``call_module``.

    ``torch.fx.Tracer.is_leaf_module`` knows torch's layers by the name of their package, and every tool has a tracer of
    its own. So the layer itself answers when it is called with a Proxy.
    """
    for layer in layers:
        layer.forward = _leaf(layer.forward)


def _leaf(forward: Any) -> Any:
    @functools.wraps(forward)
    def traceable(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Proxy):
                return _record(self, value.tracer, args, kwargs)
        return forward(self, *args, **kwargs)

    return traceable


def _record(layer: torch.nn.Module, tracer: Any, args: tuple, kwargs: dict[str, Any]) -> Proxy:
    path = tracer.path_of_module(layer)
    # The node calls the layer again: what its __call__ does around this forward would run twice.
    reason = (
        "it is itself what is traced"
        if not path
        else "it has hooks"
        if has_hooks(layer)
        else f"{type(layer).__name__} has a forward of its own"
        if not hasattr(type(layer).forward, "__wrapped__")
        else None
    )
    if reason is not None:
        raise RuntimeError(
            f"asrkern.nn.{type(layer).__name__}: torch.fx cannot record it as one node, because {reason}; trace a model "
            "that holds it with a torch.fx.Tracer whose is_leaf_module says so"
        )
    return tracer.create_proxy("call_module", path, args, kwargs)
