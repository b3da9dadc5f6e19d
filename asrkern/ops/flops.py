"""What the operations cost, for torch.utils.flop_counter.FlopCounterMode. Importing this lets it count them.

As in torch, a multiply-add counts 2, and only matrix products and convolutions count. Padded frames count like any
other, since lengths are values. The backward passes of linear and the products of cells are torch's own operations.
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


@register_flop_formula([torch.ops.asrkern.masked_conv2d, torch.ops.asrkern.masked_conv2d_batch_norm_act])
def masked_conv2d_flops(input: Shape, weight: Shape, *rest: Any, **_: Any) -> int:
    """2 · the convolution's output values · products that each is the sum of."""
    stride, padding = rest[5:7]
    sizes = [
        (size + 2 * pad - kernel) // step + 1
        for size, kernel, step, pad in zip(input[2:], weight[2:], stride, padding)
    ]
    return 2 * input[0] * prod(sizes) * prod(weight)


def _recurrent_flops(input: Shape, weight_ih: Shape, weight_hh: Shape, reverse: Shape | None) -> int:
    """2 · directions · frames · values of both weights."""
    return 2 * (1 if reverse is None else 2) * prod(input[:-1]) * (prod(weight_ih) + prod(weight_hh))


def _prepacked_flops(
    input, gates, weight_ih, scale_ih, packed_hh, scale_hh, bias_ih, bias_hh, reverse, *_: Any
) -> int:
    # Not by the shape of packed_hh, which may hold more than W_hh's values.
    rows = weight_ih[0]
    return _recurrent_flops(input, weight_ih, (rows, rows // gates), reverse)


@register_flop_formula(torch.ops.asrkern.gru)
def gru_flops(
    input, lengths, batch_sizes, h0, weight_ih, weight_hh, bias_ih, bias_hh, reverse, *_: Any, **__: Any
) -> int:
    return _recurrent_flops(input, weight_ih, weight_hh, reverse)


@register_flop_formula(torch.ops.asrkern.gru_prepacked)
def gru_prepacked_flops(input, lengths, batch_sizes, h0, *weights: Any, **_: Any) -> int:
    return _prepacked_flops(input, 3, *weights)


@register_flop_formula(torch.ops.asrkern.lstm)
def lstm_flops(
    input, lengths, batch_sizes, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reverse, *_: Any, **__: Any
) -> int:
    return _recurrent_flops(input, weight_ih, weight_hh, reverse)


@register_flop_formula(torch.ops.asrkern.lstm_prepacked)
def lstm_prepacked_flops(input, lengths, batch_sizes, h0, c0, *weights: Any, **_: Any) -> int:
    return _prepacked_flops(input, 4, *weights)


@register_flop_formula([torch.ops.asrkern.gru_cell, torch.ops.asrkern.lstm_cell])
def cell_flops(input: Shape, *others: Any, **_: Any) -> int:
    # The weights are the tensors between states, scales and biases.
    *_states, weight_ih, _scale_ih, weight_hh, _scale_hh, _bias_ih, _bias_hh, _save_reserve = others
    return _recurrent_flops(input, weight_ih, weight_hh, None)


@register_flop_formula(torch.ops.asrkern.gru_cell_prepacked)
def gru_cell_prepacked_flops(input: Shape, h: Shape, *_: Any, **__: Any) -> int:
    return _packed_cell_flops(input, h, 3)


@register_flop_formula(torch.ops.asrkern.lstm_cell_prepacked)
def lstm_cell_prepacked_flops(input: Shape, h: Shape, *_: Any, **__: Any) -> int:
    return _packed_cell_flops(input, h, 4)


def _packed_cell_flops(input: Shape, h: Shape, gates: int) -> int:
    return _recurrent_flops(input, (gates * h[1], input[1]), (gates * h[1], h[1]), None)


# Backward: each product of the forward pass has two, one for each of its factors.
@register_flop_formula(
    [torch.ops.asrkern.masked_conv2d_backward_input, torch.ops.asrkern.masked_conv2d_backward_weight]
)
def masked_conv2d_backward_flops(grad_output: Shape, input: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """Those of the forward pass, for one of its two factors."""
    return 2 * grad_output[0] * prod(grad_output[2:]) * prod(weight)


@register_flop_formula(torch.ops.asrkern.gru_backward)
def gru_backward_flops(
    grad_output, grad_h_n, input, lengths, batch_sizes, h0, weight_ih, weight_hh, reverse, *_: Any, **__: Any
) -> int:
    return 2 * _recurrent_flops(input, weight_ih, weight_hh, reverse)


@register_flop_formula(torch.ops.asrkern.lstm_backward)
def lstm_backward_flops(
    grad_output, grad_h_n, grad_c_n, input, lengths, batch_sizes, h0, c0, weight_ih, weight_hh, reverse,
    *_: Any, **__: Any,
) -> int:  # fmt: skip
    return 2 * _recurrent_flops(input, weight_ih, weight_hh, reverse)
