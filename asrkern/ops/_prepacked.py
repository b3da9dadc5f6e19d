"""Recurrent layers for inference over weights that were packed, and perhaps quantised, before."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrkern._lengths import Lengths
from asrkern.ops._autograd import call, detached
from asrkern.ops._common import cast, check_int8_weight, check_shape, compute_dtype, takes_int8
from asrkern.ops._recurrent import Cell, check_batch

_STORED = (torch.float32, torch.bfloat16, torch.int8)


class PackedWeights(NamedTuple):
    """The parameters of one direction.

    weight_ih: [gates·hidden_size, input_size], float32, bfloat16 or int8; scale_ih: [gates·hidden_size] or None;
    packed_hh: :func:`pack_weight` of weight_hh in the same type; scale_hh, bias_ih, bias_hh: [gates·hidden_size] or
    None.
    """

    weight_ih: Tensor
    scale_ih: Tensor | None
    packed_hh: Tensor
    scale_hh: Tensor | None
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None


def pack_weight(cell: Cell, weight_hh: Tensor, activations: str) -> Tensor:
    """weight_hh: [gates·hidden_size, hidden_size] in the order of the kernels; ValueError for what cannot be packed."""
    int8_activations = takes_int8(activations)
    if not isinstance(weight_hh, Tensor):
        raise TypeError(f"weight_hh: expected a Tensor, received {type(weight_hh).__name__}")
    shape = tuple(weight_hh.shape)
    if weight_hh.dtype not in _STORED or len(shape) != 2 or shape[0] != cell.gates * shape[1]:
        raise ValueError(
            f"weight_hh: expected [{cell.gates}·hidden_size, hidden_size] of float32, bfloat16 or int8, received "
            f"{weight_hh.dtype} of shape {shape}"
        )
    if weight_hh.device.type != "cpu":
        raise ValueError(f"weight_hh: expected a tensor on the CPU, received one on {weight_hh.device}")
    check_int8_weight("weight_hh", weight_hh, int8_activations)
    return call(f"{cell.name}_pack", weight_hh.detach(), int8_activations)


def run_prepacked(
    cell: Cell,
    input: Tensor,
    weights: PackedWeights,
    weights_reverse: PackedWeights | None,
    states: tuple[Tensor | None, ...],
    lengths: Lengths | None,
    batch_sizes: Lengths | None,
    batch_first: bool,
    activations: str,
) -> Any:
    """Check everything and run one layer: (output, *final states). ``states`` are the initial ones, or None."""
    int8_activations = takes_int8(activations)
    directions = [weights] if weights_reverse is None else [weights, weights_reverse]
    for name in ("weight_ih", "packed_hh"):
        for value in (getattr(direction, name) for direction in directions):
            if not isinstance(value, Tensor):
                raise TypeError(f"weights.{name}: expected a Tensor, received {type(value).__name__}")
    if weights.weight_ih.dim() != 2:
        raise ValueError(
            f"weights.weight_ih: expected [{cell.gates}·hidden_size, input_size], received shape "
            f"{tuple(weights.weight_ih.shape)}"
        )
    size, features = weights.weight_ih.shape[0] // cell.gates, weights.weight_ih.shape[1]
    lengths, batch_sizes = check_batch(
        cell, input, features, len(directions), size, states, lengths, batch_sizes, batch_first
    )
    if input.device.type != "cpu":
        raise ValueError(f"input: expected a tensor on the CPU, received one on {input.device}")
    compute_dtype(input, **dict(zip(cell.states, states)))
    tensors = []
    for direction in directions:
        _check_direction(cell, direction, weights, size)
        check_int8_weight("weights.weight_ih", direction.weight_ih, int8_activations)
        weight_ih, scale_ih, packed_hh, *rest = direction
        floats = [cast(t, torch.float32) for t in (scale_ih, *rest)]
        tensors += [weight_ih, floats[0], packed_hh, *floats[1:]]
    results = call(
        f"{cell.name}_prepacked",
        detached(input).float(),
        lengths,
        batch_sizes,
        *(None if state is None else detached(state).float() for state in states),
        *(t if t is None else t.detach() for t in tensors),
        *([None] * (12 - len(tensors))),
        batch_first,
        int8_activations,
    )
    return tuple(result.to(input.dtype) for result in results)


def _check_direction(cell: Cell, direction: PackedWeights, like: PackedWeights, size: int) -> None:
    dtypes = direction.weight_ih.dtype, direction.packed_hh.dtype
    if direction.weight_ih.shape != like.weight_ih.shape or direction.packed_hh.dtype not in _STORED:
        raise ValueError(
            f"weights: expected weight_ih {tuple(like.weight_ih.shape)} and packed_hh of float32, bfloat16 or "
            f"int8, received {tuple(direction.weight_ih.shape)} and {dtypes[1]}"
        )
    if dtypes != (like.packed_hh.dtype, like.packed_hh.dtype):
        raise ValueError(
            f"weights: expected one dtype for all, received {dtypes[0]} and {dtypes[1]} beside {like.packed_hh.dtype}"
        )
    if (direction.bias_ih is None) != (direction.bias_hh is None):
        raise ValueError("weights: expected bias_ih and bias_hh or neither, received one of them")
    for name in ("scale_ih", "scale_hh", "bias_ih", "bias_hh"):
        if getattr(direction, name) is not None:
            check_shape(f"weights.{name}", getattr(direction, name), (cell.gates * size,))
