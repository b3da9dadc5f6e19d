"""Any model of asrkern in stock torch: what a user runs without asrkern's kernels, with the same weights.

The model's own code runs, on torch's layers and functions: torch.nn.GRU and LSTM over packed sequences, conv2d,
batch_norm and linear. Masks are one comparison on the device.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import asrkern.nn
from asrkern import ops
from asrkern.nn._lengths import zero_padding


def sharing_weights(model: nn.Module) -> nn.Module:
    """A copy of a model with the very same parameters and buffers."""
    weights = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(weight): weight for weight in weights})


def with_torch_layers(model: nn.Module, packed: bool = True) -> nn.Module:
    """A copy of a model, sharing its weights, whose GRUs, LSTMs, cells and Transformer layers compute by torch's forward.

    Args:
        packed: pack the sequences; otherwise the layers run through the padding.
    """
    twin = sharing_weights(model)
    for module in twin.modules():
        if isinstance(module, asrkern.nn.GRU | asrkern.nn.LSTM):
            module.__class__ = _TorchGRU if isinstance(module, nn.GRU) else _TorchLSTM
            module.packs_sequences = packed
            module.flatten_parameters()
        elif isinstance(module, _REVERTED):
            asrkern.nn.revert(module)
    return twin.eval()


_REVERTED = (
    *(asrkern.nn.GRUCell, asrkern.nn.LSTMCell),
    *(asrkern.nn.TransformerEncoderLayer, asrkern.nn.TransformerDecoderLayer),
)


class _TorchForward:
    """In front of an asrkern layer among the bases: torch's forward behind the same interface."""

    kind: type[nn.RNNBase]

    def forward(self, input: Tensor, hx: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        if lengths is not None and self.packs_sequences:
            steps = input.shape[1 if self.batch_first else 0]
            packed = pack_padded_sequence(input, lengths.cpu(), self.batch_first, enforce_sorted=False)
            packed, state = self.kind.forward(self, packed, hx)
            output, _ = pad_packed_sequence(packed, self.batch_first, total_length=steps)
        else:
            output, state = self.kind.forward(self, input, hx)
        if self.merge == "sum" and self.bidirectional:
            output = output.unflatten(-1, (2, -1)).sum(-2)
        return output, state

    def flatten_parameters(self) -> None:
        self.kind.flatten_parameters(self)


class _TorchGRU(_TorchForward, asrkern.nn.GRU):
    kind = nn.GRU


class _TorchLSTM(_TorchForward, asrkern.nn.LSTM):
    kind = nn.LSTM


def with_torch_operations(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, while it runs with torch's operations in place of asrkern's.

    In training, batches are to have rows of one length: torch's batch norm takes statistics of padding, too.
    """

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for name, operation in _OPERATIONS.items():
                stack.enter_context(mock.patch.object(ops, name, operation))
            return function(*args)

    return run


def _masked_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    output_lengths: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    activation: tuple[float, float] | None = None,
    pool: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    x = zero_padding(input, lengths, "NCFT")
    y = F.conv2d(x, weight, bias, stride, padding, groups=groups)
    if scale is not None:
        y = torch.addcmul(shift[:, None, None], y, scale[:, None, None])
    if activation is not None:
        y = y.clamp(*activation) if torch.is_grad_enabled() else y.clamp_(*activation)
    if output_lengths is None and lengths is not None:
        output_lengths = ops.conv_output_lengths(lengths, weight.shape[3], stride[1], padding[1])
    y = zero_padding(y, output_lengths, "NCFT")
    return y if pool == (1, 1) else F.max_pool2d(y, pool)


def _batch_norm_act(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    lengths: Tensor | None = None,
    *,
    layout: str,
    training: bool,
    stats: str = "valid",
    eps: float = 1e-5,
    activation: tuple[float, float] | None = None,
) -> ops.BatchNormActResult:
    channel = layout.index("C")
    # torch wants the channels on the second axis: of rows, unless they are there.
    x = input if channel == 1 else input.flatten(0, -2)
    count = None
    if training:
        # What torch's layer would do to its running statistics; here the layer around this does.
        running_mean, running_var = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
        count = torch.tensor(x.numel() // x.shape[1])
    y = F.batch_norm(x, running_mean, running_var, weight, bias, training, 1.0, eps).view(input.shape)
    if activation is not None:
        y = y.clamp(*activation) if training else y.clamp_(*activation)
    return ops.BatchNormActResult(zero_padding(y, lengths, layout), running_mean, running_var, count)


def _masked_conv2d_batch_norm_act(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *,
    lengths: Tensor | None = None,
    output_lengths: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    stats: str = "valid",
    eps: float = 1e-5,
    activation: tuple[float, float] | None = None,
) -> ops.BatchNormActResult:
    y = F.conv2d(zero_padding(input, lengths, "NCFT"), weight, bias, stride, padding)
    if output_lengths is None and lengths is not None:
        output_lengths = ops.conv_output_lengths(lengths, weight.shape[3], stride[1], padding[1])
    # Padding counts as zeros, as with the originals' masks after every sub-module.
    y = zero_padding(y, output_lengths, "NCFT")
    options = {"layout": "NCFT", "training": True, "stats": stats, "eps": eps, "activation": activation}
    return _batch_norm_act(y, norm_weight, norm_bias, None, None, output_lengths, **options)


_OPERATIONS = {
    "linear": F.linear,
    "masked_conv2d": _masked_conv2d,
    "batch_norm_act": _batch_norm_act,
    "masked_conv2d_batch_norm_act": _masked_conv2d_batch_norm_act,
}
