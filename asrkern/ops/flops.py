"""What the operations cost, for torch.utils.flop_counter.FlopCounterMode; importing this lets it count them.

As torch does for its own, a multiply-add counts 2, and nothing but matrix products and convolutions counts. Padded
frames count like any other: which rows end earlier is in the values of lengths. The backward passes of linear and
masked_conv2d are torch's own operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from asrkern import ops  # noqa: F401  (the operations have to exist)

Shape = Sequence[int]


@register_flop_formula(
    [torch.ops.asrkern.linear, torch.ops.asrkern.linear_quantized, torch.ops.asrkern.linear_heads]
)
def linear_flops(input: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """2 · rows · in_features · out_features."""
    return 2 * prod(input[:-1]) * prod(weight)


@register_flop_formula(torch.ops.asrkern.masked_conv2d)
def masked_conv2d_flops(input: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    """2 · output values · products that each is the sum of."""
    return 2 * prod(out_shape) * prod(weight[1:])


@register_flop_formula(torch.ops.asrkern.masked_conv2d_batch_norm_act)
def masked_conv2d_batch_norm_act_flops(
    input: Shape, weight: Shape, *_: Any, out_shape: tuple[Shape, ...], **__: Any
) -> int:
    return masked_conv2d_flops(input, weight, out_shape=out_shape[0])


def _recurrent_flops(input: Shape, weight_ih: Shape, weight_hh: Shape, reverse: Shape | None) -> int:
    """2 · directions · frames · values of both weights."""
    return 2 * (1 if reverse is None else 2) * prod(input[:-1]) * (prod(weight_ih) + prod(weight_hh))


@register_flop_formula(torch.ops.asrkern.gru)
def gru_flops(input, lengths, batch_sizes, h0, weight_ih, weight_hh, *rest: Any, **_: Any) -> int:
    return _recurrent_flops(input, weight_ih, weight_hh, rest[2])


@register_flop_formula(torch.ops.asrkern.gru_prepacked)
def gru_prepacked_flops(input, lengths, batch_sizes, h0, weight_ih, *rest: Any, **_: Any) -> int:
    # The packed W_hh may hold more than its values.
    return _recurrent_flops(input, weight_ih, (weight_ih[0], weight_ih[0] // 3), rest[5])


@register_flop_formula(torch.ops.asrkern.lstm)
def lstm_flops(input, lengths, batch_sizes, h0, c0, weight_ih, weight_hh, *rest: Any, **_: Any) -> int:
    return _recurrent_flops(input, weight_ih, weight_hh, rest[2])


@register_flop_formula(torch.ops.asrkern.lstm_prepacked)
def lstm_prepacked_flops(input, lengths, batch_sizes, h0, c0, weight_ih, *rest: Any, **_: Any) -> int:
    return _recurrent_flops(input, weight_ih, (weight_ih[0], weight_ih[0] // 4), rest[5])


# Backward: each product of the forward pass has two, one for each of its factors.
@register_flop_formula(torch.ops.asrkern.gru_backward)
def gru_backward_flops(
    grad_output, grad_h_n, input, lengths, batch_sizes, h0, weight_ih, weight_hh, reverse, *_: Any, **__: Any
) -> int:
    return 2 * _recurrent_flops(input, weight_ih, weight_hh, reverse)


@register_flop_formula(torch.ops.asrkern.lstm_backward)
def lstm_backward_flops(grad_output, grad_h_n, grad_c_n, input, *rest: Any, **_: Any) -> int:
    weight_ih, weight_hh, reverse = rest[4:7]
    return 2 * _recurrent_flops(input, weight_ih, weight_hh, reverse)
