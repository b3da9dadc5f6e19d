"""Products of int8 weights with activations that are rounded to eight bits, a row at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asrkern.reference._recurrent import run_layer
from asrkern.reference.gru import gru_cell
from asrkern.reference.lstm import lstm_cell


class Int8Weight(NamedTuple):
    """value: [out_features, in_features], int8; scale: [out_features], float32: the weight is value · scale."""

    value: Tensor
    scale: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.value.shape


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., features], float32 → (q, scale [..., 1]): x ≈ q · scale with whole numbers q from −127 to 127.

    scale is max|x| / 127 of a row: 0 where all values are below 2^-100, NaN where one is not finite; q is 0 there.
    """
    largest = x.abs().amax(-1, keepdim=True)
    finite, zero = largest.isfinite(), largest < 2.0**-100
    q = torch.where(finite & ~zero, (x * (127 / largest)).round(), 0)
    return q, torch.where(finite, torch.where(zero, 0, largest / 127), torch.nan)


def multiply(x: Tensor, weight: Int8Weight) -> Tensor:
    """x [..., in_features], float32 → [..., out_features]: an exact sum of whole numbers, times both scales."""
    q, scale = round_rows(x)
    sums = q.double() @ weight.value.double().t()
    return sums.float() * (scale * weight.scale)


def linear_int8(input: Tensor, weight: Int8Weight, bias: Tensor | None = None) -> Tensor:
    """Reference of :func:`asrkern.ops.linear_quantized` with ``activations="int8"``."""
    output = multiply(input, weight)
    return output if bias is None else output + bias


def gru_int8(
    input, weights, weights_reverse=None, h0=None, *, lengths=None, batch_sizes=None, batch_first=False
) -> tuple[Tensor, Tensor]:
    """Reference of :func:`asrkern.ops.gru_prepacked` with ``activations="int8"``.

    weights: weight_ih and weight_hh as ``Int8Weight``, bias_ih and bias_hh, as :class:`asrkern.ops.GRUWeights`.
    """
    states = (h0,)
    return run_layer(
        gru_cell, input, weights, weights_reverse, states, lengths, batch_sizes, batch_first, multiply
    )


def lstm_int8(
    input,
    weights,
    weights_reverse=None,
    h0=None,
    c0=None,
    *,
    lengths=None,
    batch_sizes=None,
    batch_first=False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Reference of :func:`asrkern.ops.lstm_prepacked` with ``activations="int8"``; weights as in :func:`gru_int8`."""
    states = (h0, c0)
    return run_layer(
        lstm_cell, input, weights, weights_reverse, states, lengths, batch_sizes, batch_first, multiply
    )
