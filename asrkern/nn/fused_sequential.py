"""torch.nn.Sequential that runs a batch norm and the clamp after it as one operation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.fx import Proxy

from asrkern.nn._hooks import is_altered
from asrkern.nn.batch_norm import apply_batch_norm, clamp_range

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
# By the dimensions of the input, of which a batch norm checks that they are its own.
_LAYOUTS = {2: "RC", 3: "NCT", 4: "NCFT"}


class FusedSequential(nn.Sequential):
    """Drop-in replacement of torch.nn.Sequential; same modules and keys.

    A BatchNorm1d, BatchNorm2d or SyncBatchNorm and the Hardtanh, ReLU6 or ReLU after it are one pass over the data. Both
    stay modules of the stack, and what is fused is decided at each call from those that are there: where one of them
    was replaced (as by ``torch.nn.utils.fusion.fuse_conv_bn_eval``) or has hooks, each runs as it is. A SyncBatchNorm
    takes its statistics over all ranks, on the CPU, too.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Run the modules one after the other, from input on; takes and returns what they do.

        Raises:
            ValueError: input reaches a batch norm with another number of dimensions than it takes.
        """
        if isinstance(input, Proxy):
            # To tools of torch.fx, which look for these very modules, what it is made of.
            return super().forward(input)
        for module, activation in with_activations(self):
            if activation is None:
                input = module(input)
            else:
                module._check_input_dim(input)
                if input.dim() not in _LAYOUTS:
                    raise ValueError(f"input: expected 2 to 4 dimensions, received {list(input.shape)}")
                layout = _LAYOUTS[input.dim()]
                input = apply_batch_norm(module, input, layout=layout, activation=activation)
        return input


def with_activations(stack: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, tuple[float, float] | None]]:
    """The modules of a stack in order; with a BatchNorm that can be fused the range of the clamp after it, which is
    left out."""
    modules = list(stack)
    while modules:
        module = modules.pop(0)
        activation = None
        if type(module) in _NORMS and modules and not (is_altered(module) or is_altered(modules[0])):
            activation = clamp_range(modules[0])
            if activation is not None:
                modules.pop(0)
        yield module, activation
