"""Whether torch.func looks on."""

from __future__ import annotations

import torch


def transforming() -> bool:
    """Whether a transform of torch.func runs, whose tensors may have no values; not within torch.compile."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
