"""Batch normalisation over the valid frames of padded batches, fused with the activation that follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asrkern import ops
from asrkern._lengths import Lengths, as_lengths, values_are_known
from asrkern.nn._sync_batch_norm import synchronised_batch_norm_act, synchronises


def clamp_range(module: Any) -> tuple[float, float] | None:
    """(min, max) of an activation that only clamps (Hardtanh, ReLU6, ReLU); None for any other module."""
    if type(module) is nn.ReLU:
        return (0.0, float("inf"))
    if type(module) in (nn.Hardtanh, nn.ReLU6):
        return (float(module.min_val), float(module.max_val))
    return None


def uses_batch_stats(module: Any) -> bool:
    """Whether a torch batch norm, in its present mode, normalises by the batch, not by running statistics."""
    return module.training or module.running_mean is None


def apply_batch_norm(
    module: Any,
    input: Tensor,
    lengths: Lengths | None = None,
    *,
    layout: str,
    stats: str = "valid",
    activation: tuple[float, float] | None = None,
) -> Tensor:
    """Run :func:`asrkern.ops.batch_norm_act` with a torch batch norm's parameters, and update its statistics.

    Args:
        module: torch.nn.BatchNorm1d, 2d or SyncBatchNorm. Its training flag, parameters and buffers are used as torch
            uses them. SyncBatchNorm takes its statistics over the (valid) frames of all ranks.
        input: tensor with axes as layout says.
        lengths: integers [N], valid frames per row; frames beyond are zero in the output.
        layout: "RC", "NTC", "TNC", "NCT" or "NCFT".
        stats: "valid" or "padded", the frames that count in training.
        activation: (min, max) to clamp to, or None.

    Raises:
        ValueError: in training, fewer than two values per channel.
    """
    channels = input.shape[layout.index("C")]
    if channels != module.num_features:
        raise ValueError(
            f"input: expected {module.num_features} channels on axis {layout.index('C')} of {layout}, "
            f"received {list(input.shape)}"
        )
    if lengths is not None:
        lengths = as_lengths("lengths", lengths, *(input.shape[layout.index(axis)] for axis in "NT"))
    if synchronises(module):
        result = synchronised_batch_norm_act(
            module, input, lengths, layout=layout, stats=stats, activation=activation
        )
        track_statistics(module, result, lengths)
        return result.output
    batch_stats = uses_batch_stats(module)
    result = ops.batch_norm_act(
        input,
        module.weight,
        module.bias,
        None if batch_stats else module.running_mean,
        None if batch_stats else module.running_var,
        lengths,
        layout=layout,
        training=batch_stats,
        stats=stats,
        eps=module.eps,
        activation=activation,
    )
    track_statistics(module, result, lengths)
    return result.output


def track_statistics(module: Any, result: ops.BatchNormActResult, lengths: Tensor | None) -> None:
    """Update running statistics as a torch batch norm does after normalising a batch.

    Raises:
        ValueError: in training, fewer than two values per channel.
    """
    if uses_batch_stats(module):
        _check_count(result.output, lengths, result.count, module.num_features)
    if module.training and module.track_running_stats:
        _update_running_stats(module, result.mean, result.var, result.count)


def _check_count(input: Tensor, lengths: Tensor | None, count: Tensor, channels: int) -> None:
    """Raise as torch does for one value per channel, unless reading it would stop a trace or wait for a GPU."""
    if torch.compiler.is_compiling() or (lengths is not None and not values_are_known(count)):
        return
    values = input.numel() // channels if lengths is None else int(count)
    if values <= 1:
        raise ValueError(
            f"input: expected more than 1 value per channel when training, received {values} "
            f"in shape {list(input.shape)}" + ("" if lengths is None else f" with lengths {lengths.tolist()}")
        )


@torch.no_grad()
def _update_running_stats(module: Any, mean: Tensor, var: Tensor, count: Tensor) -> None:
    module.num_batches_tracked.add_(1)
    momentum = 1 / module.num_batches_tracked.double() if module.momentum is None else module.momentum
    var = var * (count / (count - 1).clamp(min=1).double())
    # Fewer than two valid values have no variance. If that could not raise, the running statistics stay as they are.
    usable = count > 1
    for running, batch in ((module.running_mean, mean), (module.running_var, var)):
        updated = running * (1 - momentum) + batch.to(running.dtype) * momentum
        running.copy_(torch.where(usable, updated, running))


def _check_options(stats: str, activation: tuple[float, float] | None) -> None:
    if stats not in ("valid", "padded"):
        raise ValueError(f'stats: expected "valid" or "padded", received {stats!r}')
    if activation is not None and (len(activation) != 2 or not activation[0] < activation[1]):
        raise ValueError(f"activation: expected None or (min, max) with min < max, received {activation!r}")


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """torch.nn.BatchNorm1d with lengths and a clamping activation; same parameters, buffers and keys.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as in torch.nn.BatchNorm1d.
        activation: (min, max) to clamp the output to, (0, inf) being ReLU; None for none.
        stats: frames that count for the statistics in training: "valid", those before each length, or
            "padded", all of them, as torch.nn.BatchNorm1d would.
        layout: axes of three-dimensional input: "NCT" (torch's), "NTC" or "TNC".

    Raises:
        ValueError: activation, stats or layout is none of the above.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: tuple[float, float] | None = None,
        stats: str = "valid",
        layout: str = "NCT",
    ) -> None:
        _check_options(stats, activation)
        if layout not in ("NCT", "NTC", "TNC"):
            raise ValueError(f'layout: expected "NCT", "NTC" or "TNC", received {layout!r}')
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.activation = activation
        self.stats = stats
        self.layout = layout

    def forward(self, input: Tensor, lengths: Lengths | None = None) -> Tensor:
        """Normalise and clamp.

        Args:
            input: [rows, C], or three-dimensional as layout says.
            lengths: integers [N], valid frames per row; the output is zero beyond. All frames if None.

        Raises:
            TypeError: lengths are not integers.
            ValueError: wrong shape, lengths with [rows, C], or fewer than two values per channel in training.
        """
        self._check_input_dim(input)
        if input.dim() == 2 and lengths is not None:
            raise ValueError("lengths: expected None with input [rows, C]")
        layout = "RC" if input.dim() == 2 else self.layout
        return apply_batch_norm(
            self, input, lengths, layout=layout, stats=self.stats, activation=self.activation
        )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, activation={self.activation}, stats={self.stats}, layout={self.layout}"
        )


class MaskedBatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d over [N, C, F, T] with lengths along T and a clamping activation; same keys.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as in torch.nn.BatchNorm2d.
        activation, stats: as in :class:`MaskedBatchNorm1d`.

    Raises:
        ValueError: activation or stats is none of those.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: tuple[float, float] | None = None,
        stats: str = "valid",
    ) -> None:
        _check_options(stats, activation)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.activation = activation
        self.stats = stats

    def forward(self, input: Tensor, lengths: Lengths | None = None) -> Tensor:
        """Normalise and clamp.

        Args:
            input: [N, C, F, T].
            lengths: integers [N], valid frames per row; the output is zero beyond. All frames if None.

        Raises:
            TypeError: lengths are not integers.
            ValueError: wrong shape, or fewer than two values per channel in training.
        """
        self._check_input_dim(input)
        return apply_batch_norm(
            self, input, lengths, layout="NCFT", stats=self.stats, activation=self.activation
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}, stats={self.stats}"
