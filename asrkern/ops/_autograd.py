"""Autograd of the operations, also under the transforms of torch.func (grad, vmap, jacrev, …)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from asrkern._transforms import transforming
from asrkern.ops._log import logged

# Operation → its autograd function for the transforms, which refuse what torch.library.register_autograd makes.
_FUNCTIONS: dict[str, type[torch.autograd.Function]] = {}
# Operations for inference, which have no derivative.
_WITHOUT_DERIVATIVE: set[str] = set()


@logged
def call(name: str, *args: Any) -> Any:
    """``torch.ops.asrkern.<name>(*args)``, in eager mode, under a transform or in a trace.

    Raises:
        RuntimeError: forward-mode derivatives, which would silently be lost; or export to ONNX through TorchScript.
    """
    operation = getattr(torch.ops.asrkern, name)
    if torch.compiler.is_compiling():
        return operation(*map(_finite, args))
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        raise RuntimeError(
            f"asrkern::{name}: torch.onnx.export(dynamo=False) has no translation of it; pass dynamo=True and "
            "custom_translation_table=asrkern.onnx.translations(), or export what asrkern.nn.revert(model) makes of it"
        )
    if transforming() or (name in _WITHOUT_DERIVATIVE and _recorded(args)):
        return _FUNCTIONS[name].apply(*args)
    if forward_ad._current_level >= 0 and any(
        isinstance(arg, Tensor) and forward_ad.unpack_dual(arg).tangent is not None for arg in args
    ):
        _raise_in_forward_mode(name)
    return operation(*args)


def _recorded(args: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)


def _finite(arg: Any) -> Any:
    # AOTInductor (torch 2.13) writes infinity as a string that it cannot read as a number. In a trace a float may be a
    # symbol, which can be compared.
    if isinstance(arg, float) and (arg == math.inf or arg == -math.inf):
        return sys.float_info.max if arg > 0 else -sys.float_info.max
    return arg


def detached(value: Tensor) -> Tensor:
    """The input of an operation without derivative, detached; not in transforms, which would find gradients of zero."""
    return value if transforming() else value.detach()


def register_autograd(
    name: str, backward: Callable, setup_context: Callable[..., None] = lambda ctx, inputs, output: None
) -> None:
    """:func:`torch.library.register_autograd` of ``asrkern::<name>``, for :func:`call` in transforms, too."""
    torch.library.register_autograd(f"asrkern::{name}", backward, setup_context=setup_context)
    _register_transforms(name, backward, setup_context)


def raise_on_double_backward(name: str) -> None:
    """Make the backward of ``asrkern::<name>`` raise when it is differentiated itself."""

    def backward(ctx, *grads):
        raise RuntimeError(
            f"asrkern::{name} is itself a backward: its derivative (double backward) is not implemented; "
            "use asrkern.reference for second derivatives"
        )

    register_autograd(name, backward)


def not_differentiable(*names: str) -> None:
    """Make transforms and backward raise if they ask for derivatives of these operations.

    Eager backward only asks if inputs are not :func:`detached`.
    """

    def register(name: str) -> None:
        def backward(ctx, *grads):
            raise RuntimeError(
                f"asrkern::{name} is for inference and has no derivative; differentiate the layer that its weights "
                "were made from"
            )

        _register_transforms(name, backward, lambda ctx, inputs, output: None)
        _WITHOUT_DERIVATIVE.add(name)

    for name in names:
        register(name)


def _register_transforms(name: str, backward: Callable, setup_context: Callable[..., None]) -> None:
    operation = getattr(torch.ops.asrkern, name)

    def loop(info, in_dims, *args):
        # One call for each index of the mapped dimension.
        results = [
            operation(
                *(arg.select(dim, i) if isinstance(dim, int) else arg for arg, dim in zip(args, in_dims))
            )
            for i in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(map(torch.stack, zip(*results))), (0,) * len(results[0])

    torch.library.register_vmap(f"asrkern::{name}", loop)
    members = {
        "forward": lambda *args: operation(*args),
        "setup_context": setup_context,
        "backward": backward,
        "jvp": lambda ctx, *tangents: _raise_in_forward_mode(name),
    }
    namespace = {key: staticmethod(member) for key, member in members.items()}
    _FUNCTIONS[name] = type(name, (torch.autograd.Function,), {**namespace, "generate_vmap_rule": True})


def _raise_in_forward_mode(name: str) -> None:
    raise RuntimeError(
        f"asrkern::{name} has no forward-mode derivative (jvp, jacfwd, hessian); vjp and jacrev of torch.func work, and "
        "asrkern.nn.revert(model) puts torch's own layers back"
    )
