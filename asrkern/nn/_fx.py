"""What ``torch.fx`` sees of layers whose forward looks at shapes and lengths: one node each, as of torch's own layers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.fx import Proxy

from asrkern.nn._hooks import has_hooks


def make_leaves(*layers: type[torch.nn.Module]) -> None:
    """Let symbolic tracers, whichever they are, record a call of these layers as one ``call_module``.

    ``torch.fx.Tracer.is_leaf_module`` knows torch's layers by the name of their package, and every tool has a tracer of
    its own: so it is the layer that answers a Proxy.
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
    # The node runs all of the layer's __call__: what stands around this forward would run twice.
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
