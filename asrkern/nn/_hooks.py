"""Whether a module's own ``__call__`` has to run, or an operation may take the place of its forward."""

from __future__ import annotations

from torch import nn


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module runs forward or backward hooks (torch.nn.utils.weight_norm is one)."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_altered(module: nn.Module) -> bool:
    """Whether calling the module does more than its class says: hooks, or a forward of its own (accelerate, LoRA)."""
    return has_hooks(module) or "forward" in module.__dict__
