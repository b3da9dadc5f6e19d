"""deepspeech.pytorch's module over every frame of a padded batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from asrkern import ops
from asrkern._lengths import Lengths, as_lengths
from asrkern.nn._hooks import is_altered
from asrkern.nn._lengths import zero_padding
from asrkern.nn.batch_norm import MaskedBatchNorm1d, apply_batch_norm
from asrkern.nn.fused_sequential import FusedSequential, with_activations


class SequenceWise(nn.Module):
    """Applies a module to each frame of [T, N, H], as if to rows [T * N, H]; keys ``module.*``.

    A BatchNorm1d (with the clamp after it) or a Linear, alone or in a Sequential, runs as an operation of asrkern's:
    then a batch norm counts valid frames only, and a row's result does not depend on the rest of the batch. Other
    modules, and modules with hooks, run on the flattened rows as they are.

    Args:
        module: any module that takes rows [T * N, H].
        stats: frames that count for batch statistics in training when lengths are given, "valid" or "padded".

    Raises:
        ValueError: stats is neither "valid" nor "padded".
    """

    def __init__(self, module: nn.Module, stats: str = "valid") -> None:
        super().__init__()
        if stats not in ("valid", "padded"):
            raise ValueError(f'stats: expected "valid" or "padded", received {stats!r}')
        self.module = module
        self.stats = stats

    def forward(self, x: Tensor, lengths: Lengths | None = None) -> Tensor:
        """Run the module.

        Args:
            x: [T, N, ...], flattened to rows of features from the third axis on.
            lengths: integers [N], valid frames per row; the output is zero beyond. All frames if None.

        Returns:
            [T, N, H'].

        Raises:
            TypeError: lengths are not integers.
            ValueError: x has fewer than three dimensions, lengths the wrong shape, or a length is out of range.
        """
        if x.dim() < 3:
            raise ValueError(f"x: expected [T, N, H], received {list(x.shape)}")
        lengths = as_lengths("lengths", lengths, x.shape[1])
        x = x.flatten(2)
        unpacked = type(self.module) in (nn.Sequential, FusedSequential) and not is_altered(self.module)
        modules: Any = self.module if unpacked else (self.module,)
        for module, activation in with_activations(modules):
            x = self._apply_one(module, activation, x, lengths)
        return zero_padding(x, lengths, "TNC")

    def _apply_one(
        self, module: nn.Module, activation: tuple[float, float] | None, x: Tensor, lengths: Tensor | None
    ) -> Tensor:
        if not is_altered(module):
            if type(module) in (nn.BatchNorm1d, nn.SyncBatchNorm):
                return apply_batch_norm(
                    module, x, lengths, layout="TNC", stats=self.stats, activation=activation
                )
            if type(module) is MaskedBatchNorm1d:
                return apply_batch_norm(
                    module, x, lengths, layout="TNC", stats=module.stats, activation=module.activation
                )
            if type(module) is nn.Linear:
                return ops.linear(x, module.weight, module.bias)
        return module(x.flatten(0, 1)).flatten(1).unflatten(0, x.shape[:2])
