"""Gated recurrent unit over padded or packed batches, one or two directions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asrkern.ops._common import cast, check_shape
from asrkern.ops._recurrent import Cell, RecurrentWeights, check_batch, register, run_layer


class GRUWeights(RecurrentWeights):
    """The parameters of one direction, as torch.nn.GRU keeps them (gates in the order r, z, n).

    weight_ih: [3·hidden_size, input_size]; weight_hh: [3·hidden_size, hidden_size]; bias_ih, bias_hh:
    [3·hidden_size], both or neither.
    """


_CELL = Cell("gru", gates=3, saved=4, states=("h0",))
register(_CELL)


def gru(
    input: Tensor,
    weights: GRUWeights,
    weights_reverse: GRUWeights | None = None,
    h0: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor]:
    """One layer of torch.nn.GRU (the reset gate multiplies after the matmul; Cho et al. 2014, cuDNN's variant).

    In inference, float32 on the CPU, a row is bit-identical whatever its batch mates, the batch size and the padding.
    Finished rows cost nothing.

    Args:
        input: [T, N, input_size], or [N, T, input_size] with batch_first, or, with batch_sizes, the data
            [frames, input_size] of a PackedSequence. float32 or float64; lower precisions are computed in float32.
        weights: the forward direction's :class:`GRUWeights`.
        weights_reverse: the reverse direction's, or None for one direction.
        h0: [directions, N, hidden_size], or None for zeros. Rows in the order of the input.
        lengths: [N] integers, frames of each row in any order, on any device; 0 is allowed. None: all T.
        batch_sizes: [T] integers on the CPU, a PackedSequence's.

    Returns:
        output: as input, with directions·hidden_size features; 0 beyond each row's length.
        h_n: [directions, N, hidden_size], each row's state at its own end.

    Raises:
        TypeError: not a floating-point tensor, or float64 with another dtype.
        ValueError: shapes, devices, lengths or batch_sizes that do not fit, or an empty batch.
    """
    return run_layer(_CELL, input, weights, weights_reverse, (h0,), lengths, batch_sizes, batch_first)


class PackedGRUWeights(NamedTuple):
    """The parameters of one direction, ready for :func:`gru_prepacked`.

    weight_ih: [3·hidden_size, input_size], float32, bfloat16 or int8; scale_ih: [3·hidden_size] or None; packed_hh:
    :func:`pack_gru_weight` of weight_hh in the same type; scale_hh, bias_ih, bias_hh: [3·hidden_size] or None.
    """

    weight_ih: Tensor
    scale_ih: Tensor | None
    packed_hh: Tensor
    scale_hh: Tensor | None
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None


_STORED = (torch.float32, torch.bfloat16, torch.int8)


def pack_gru_weight(weight_hh: Tensor) -> Tensor:
    """weight_hh in the order in which this process' kernels read it: not for storing, it depends on the CPU.

    Args:
        weight_hh: [3·hidden_size, hidden_size] on the CPU, float32, bfloat16 or int8.

    Returns:
        A 1-dimensional tensor of the same dtype.

    Raises:
        ValueError: another shape, dtype or device.
    """
    if weight_hh.dtype not in _STORED or weight_hh.dim() != 2 or weight_hh.shape[0] != 3 * weight_hh.shape[1]:
        raise ValueError(
            "weight_hh: expected [3·hidden_size, hidden_size] of float32, bfloat16 or int8, received "
            f"{weight_hh.dtype} of shape {tuple(weight_hh.shape)}"
        )
    if weight_hh.device.type != "cpu":
        raise ValueError(f"weight_hh: expected a tensor on the CPU, received one on {weight_hh.device}")
    return torch.ops.asrkern.gru_pack(weight_hh.detach())


def gru_prepacked(
    input: Tensor,
    weights: PackedGRUWeights,
    weights_reverse: PackedGRUWeights | None = None,
    h0: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor]:
    """:func:`gru` for inference on the CPU, over weights that were packed (and perhaps quantised) before.

    Computed in float32: ``(x Qᵀ) · scale`` in place of ``x Wᵀ``. With float32 weights the result is :func:`gru`'s, bit
    for bit; with all of them a row's is the same whatever its batch. Not differentiable.

    Args:
        weights, weights_reverse: :class:`PackedGRUWeights`.
        input, h0, lengths, batch_sizes, batch_first: as in :func:`gru`.

    Returns:
        output and h_n, as :func:`gru`'s, in the dtype of input.

    Raises:
        TypeError, ValueError: as :func:`gru`, and weights that do not fit each other.
    """
    size, features = weights.weight_ih.shape[0] // 3, weights.weight_ih.shape[1]
    directions = [weights] if weights_reverse is None else [weights, weights_reverse]
    lengths = check_batch(
        _CELL, input, features, len(directions), size, (h0,), lengths, batch_sizes, batch_first
    )
    if input.device.type != "cpu":
        raise ValueError(f"input: expected a tensor on the CPU, received one on {input.device}")
    tensors = []
    for direction in directions:
        if direction.weight_ih.shape != weights.weight_ih.shape or direction.packed_hh.dtype not in _STORED:
            raise ValueError(
                f"weights: expected weight_ih {tuple(weights.weight_ih.shape)} and packed_hh of float32, bfloat16 or "
                f"int8, received {tuple(direction.weight_ih.shape)} and {direction.packed_hh.dtype}"
            )
        if (
            direction.weight_ih.dtype != weights.packed_hh.dtype
            or direction.packed_hh.dtype != weights.packed_hh.dtype
        ):
            raise ValueError(
                f"weights: expected one dtype for all, received {direction.weight_ih.dtype} and "
                f"{direction.packed_hh.dtype} beside {weights.packed_hh.dtype}"
            )
        if (direction.bias_ih is None) != (direction.bias_hh is None):
            raise ValueError("weights: expected bias_ih and bias_hh or neither, received one of them")
        for name in ("scale_ih", "scale_hh", "bias_ih", "bias_hh"):
            if getattr(direction, name) is not None:
                check_shape(f"weights.{name}", getattr(direction, name), (3 * size,))
        weight_ih, scale_ih, packed_hh, *rest = direction
        tensors += [
            weight_ih,
            cast(scale_ih, torch.float32),
            packed_hh,
            *(cast(t, torch.float32) for t in rest),
        ]
    output, h_n = torch.ops.asrkern.gru_prepacked(
        input.detach().float(),
        lengths,
        batch_sizes,
        None if h0 is None else h0.detach().float(),
        *(t if t is None else t.detach() for t in tensors),
        *([None] * (12 - len(tensors))),
        batch_first,
    )
    return output.to(input.dtype), h_n.to(input.dtype)
