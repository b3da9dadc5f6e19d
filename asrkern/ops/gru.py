"""Gated recurrent unit over padded or packed batches, one or two directions."""

from __future__ import annotations

from torch import Tensor

from asrkern._lengths import Lengths
from asrkern.ops._prepacked import PackedWeights, pack_weight, run_prepacked
from asrkern.ops._recurrent import Cell, RecurrentWeights, register, run_layer


class GRUWeights(RecurrentWeights):
    """The parameters of one direction, as torch.nn.GRU keeps them (gates in the order r, z, n).

    weight_ih: [3·hidden_size, input_size]; weight_hh: [3·hidden_size, hidden_size]; bias_ih, bias_hh:
    [3·hidden_size], both or neither.
    """


CELL = Cell("gru", gates=3, saved=4, states=("h0",))
register(CELL)


def gru(
    input: Tensor,
    weights: GRUWeights,
    weights_reverse: GRUWeights | None = None,
    h0: Tensor | None = None,
    *,
    lengths: Lengths | None = None,
    batch_sizes: Lengths | None = None,
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
        ValueError: shapes, devices, lengths or batch_sizes that do not fit, or no frames (a batch may have no rows).
    """
    return run_layer(CELL, input, weights, weights_reverse, (h0,), lengths, batch_sizes, batch_first)


class PackedGRUWeights(PackedWeights):
    """The parameters of one direction, ready for :func:`gru_prepacked`.

    weight_ih: [3·hidden_size, input_size], float32, bfloat16 or int8; scale_ih: [3·hidden_size] or None; packed_hh:
    :func:`pack_gru_weight` of weight_hh in the same type; scale_hh, bias_ih, bias_hh: [3·hidden_size] or None.
    """


def pack_gru_weight(weight_hh: Tensor, activations: str = "float32") -> Tensor:
    """weight_hh in the order in which this process' kernels read it: not for storing, it depends on the CPU.

    Args:
        weight_hh: [3·hidden_size, hidden_size] on the CPU, float32, bfloat16 or int8.
        activations: "float32" or, for int8 weights, "int8": what :func:`gru_prepacked` is to be told.

    Returns:
        A 1-dimensional tensor of the same dtype.

    Raises:
        ValueError: another shape, dtype or device, or other activations.
    """
    return pack_weight(CELL, weight_hh, activations)


def gru_prepacked(
    input: Tensor,
    weights: PackedGRUWeights,
    weights_reverse: PackedGRUWeights | None = None,
    h0: Tensor | None = None,
    *,
    lengths: Lengths | None = None,
    batch_sizes: Lengths | None = None,
    batch_first: bool = False,
    activations: str = "float32",
) -> tuple[Tensor, Tensor]:
    """:func:`gru` for inference on the CPU, over weights that were packed (and perhaps quantised) before.

    Computed in float32: ``(x Qᵀ) · scale`` in place of ``x Wᵀ``. With float32 weights the result is :func:`gru`'s, bit
    for bit; with all of them a row's is the same whatever its batch. Not differentiable.

    With ``activations="int8"`` each row of the input and, at each step, of the state is rounded to eight bits before it
    meets the weights: x to q = round(127 x / max|x|), and the sums Σ q·Q are of integers, exact in any order. What the
    states carry on is not rounded. A row that is not finite gives NaN.

    Args:
        weights, weights_reverse: :class:`PackedGRUWeights`.
        input, h0, lengths, batch_sizes, batch_first: as in :func:`gru`.
        activations: "float32", or "int8" with int8 weights that :func:`pack_gru_weight` has packed for it.

    Returns:
        output and h_n, as :func:`gru`'s, in the dtype of input.

    Raises:
        TypeError, ValueError: as :func:`gru`, and weights that do not fit each other.
    """
    return run_prepacked(
        CELL, input, weights, weights_reverse, (h0,), lengths, batch_sizes, batch_first, activations
    )
