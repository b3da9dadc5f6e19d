"""deepspeech.pytorch's masked convolution stack, fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asrkern import ops
from asrkern._lengths import Lengths, as_lengths, check_range, values_are_known
from asrkern.nn._conv_stages import Stage, folded, is_fusible, pool_window, stages_of
from asrkern.nn._lengths import zero_padding
from asrkern.nn._sync_batch_norm import synchronises
from asrkern.nn.batch_norm import (
    MaskedBatchNorm2d,
    apply_batch_norm,
    track_statistics,
    uses_batch_stats,
)


class MaskConv(nn.Module):
    """A stack of 2-D convolutions over [N, C, F, T] whose padding frames stay zero; keys ``seq_module.*``.

    Runs of Conv2d, BatchNorm2d (or SyncBatchNorm), Hardtanh, ReLU or ReLU6, and MaxPool2d are one operation in eval mode
    (the batch norm folded into a scale and a shift) and two or three in training. Any other module, a convolution with
    groups, dilation or non-zero padding mode, a pool whose windows overlap, and a module with hooks run as they are and are
    masked after.

    Args:
        seq_module: the stack.
        stats: frames that count for batch statistics in training, "valid" or "padded" (as the original does).

    Raises:
        ValueError: stats is neither "valid" nor "padded".
    """

    def __init__(self, seq_module: nn.Sequential, stats: str = "valid") -> None:
        super().__init__()
        if stats not in ("valid", "padded"):
            raise ValueError(f'stats: expected "valid" or "padded", received {stats!r}')
        self.seq_module = seq_module
        self.stats = stats

    def forward(
        self, x: Tensor, lengths: Lengths | None = None, *, input_lengths: Lengths | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Run the stack. With neither lengths nor input_lengths nothing is masked; both together are refused.

        Args:
            x: [N, C, F, T].
            lengths: integers [N], frames of each row after the whole stack. Every stage's output is masked by them, as
                in deepspeech.pytorch; the input is read as it is.
            input_lengths: integers [N], frames of each row before the first convolution. Frames beyond are not read,
                and each stage is masked by its own exact lengths. A length of zero stays zero.
        Returns:
            Output [N, C', F', T'], and lengths; or the output lengths (int64) that follow from input_lengths.

        Raises:
            TypeError: lengths are not integers.
            ValueError: both lengths given, of another shape or out of range, or a module changes T in a way that
                input_lengths cannot follow.
        """
        if lengths is not None and input_lengths is not None:
            raise ValueError("lengths, input_lengths: expected at most one of the two, received both")
        lengths = as_lengths("lengths", lengths, x.shape[0])
        before = as_lengths("input_lengths", input_lengths, x.shape[0], x.shape[-1])
        stages = stages_of(self.seq_module)
        while stages:
            stage = stages.pop(0)
            after = _lengths_after(stage.module, before)
            mask = after if lengths is None else lengths
            if stage.module is None:
                x = self._batch_norm(stage, x, mask)
            elif is_fusible(stage.module):
                if lengths is not None and values_are_known(lengths):
                    # The operation names them output_lengths. An input without frames is reported first.
                    frames = int(_lengths_after(stage.module, torch.tensor(x.shape[-1])))
                    check_range("lengths", lengths, 0, frames or x.shape[-1], "T'")
                pool = pool_window(stages[0].module) if stages and not self._uses_batch_stats(stage) else None
                if pool is None or (lengths is not None and pool[1] > 1):
                    x = self._conv(stage, x, before, mask)
                else:
                    x = self._conv(stage, x, before, mask, pool)
                    after = _lengths_after(stages.pop(0).module, after)
            else:
                y = stage.module(zero_padding(x, before, "NCFT"))
                if after is not None and after is before and y.shape[-1] != x.shape[-1]:
                    raise ValueError(
                        f"input_lengths: cannot follow {type(stage.module).__name__}, "
                        f"which makes {y.shape[-1]} frames of {x.shape[-1]}"
                    )
                x = zero_padding(y, mask, "NCFT")
            before = after
        return x, before if lengths is None else lengths

    def _conv(
        self,
        stage: Stage,
        x: Tensor,
        before: Tensor | None,
        after: Tensor | None,
        pool: tuple[int, int] = (1, 1),
    ) -> Tensor:
        conv, norm, activation = stage
        options: dict[str, Any] = {
            "lengths": before,
            "output_lengths": after,
            "stride": conv.stride,
            "padding": conv.padding,
            "activation": activation,
        }
        if synchronises(norm):
            x = ops.masked_conv2d(x, conv.weight, conv.bias, **{**options, "activation": None})
            return self._batch_norm(stage, x, after)
        if norm is None or not uses_batch_stats(norm):
            scale, shift = (None, None) if norm is None else folded(norm)
            return ops.masked_conv2d(x, conv.weight, conv.bias, scale, shift, **options, pool=pool)
        if norm.num_features != conv.out_channels:
            raise ValueError(
                f"seq_module: expected a batch norm of {conv.out_channels} channels, those of the convolution before "
                f"it, received {norm.num_features}"
            )
        result = ops.masked_conv2d_batch_norm_act(
            x,
            conv.weight,
            conv.bias,
            norm.weight,
            norm.bias,
            stats=self._stats(norm),
            eps=norm.eps,
            **options,
        )
        track_statistics(norm, result, after)
        return result.output

    def _uses_batch_stats(self, stage: Stage) -> bool:
        return self.training or (stage.norm is not None and uses_batch_stats(stage.norm))

    def _batch_norm(self, stage: Stage, x: Tensor, lengths: Tensor | None) -> Tensor:
        return apply_batch_norm(
            stage.norm, x, lengths, layout="NCFT", stats=self._stats(stage.norm), activation=stage.activation
        )

    def _stats(self, norm: nn.Module) -> str:
        return norm.stats if isinstance(norm, MaskedBatchNorm2d) else self.stats


def _lengths_after(module: Any, lengths: Tensor | None) -> Any:
    """Lengths after one module: the same object if the module is assumed to keep the frames."""
    pooling = isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) and not module.ceil_mode
    if lengths is None or not (pooling or (isinstance(module, nn.Conv2d) and module.padding != "same")):
        return lengths
    kernel_size, stride, padding = (
        value if isinstance(value, int) else value[1]
        for value in (module.kernel_size, module.stride, 0 if module.padding == "valid" else module.padding)
    )
    dilation = getattr(module, "dilation", 1)
    dilation = dilation if isinstance(dilation, int) else dilation[1]
    return ops.conv_output_lengths(lengths, (kernel_size - 1) * dilation + 1, stride, padding)
