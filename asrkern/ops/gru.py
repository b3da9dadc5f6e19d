"""Gated recurrent unit over padded or packed batches, one or two directions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asrkern.ops._common import (
    cast,
    check_same_device,
    check_shape,
    check_tensor,
    compute_dtype,
    lengths_on,
    output_dtype,
    raise_on_double_backward,
)


class GRUWeights(NamedTuple):
    """The parameters of one direction, as torch.nn.GRU keeps them (gates in the order r, z, n).

    weight_ih: [3·hidden_size, input_size]; weight_hh: [3·hidden_size, hidden_size]; bias_ih, bias_hh:
    [3·hidden_size], both or neither.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None


def _check_weights(name: str, weights: GRUWeights, input: Tensor, like: GRUWeights) -> None:
    check_tensor(f"{name}.weight_hh", weights.weight_hh, (2,))
    size, features = like.weight_hh.shape[1], like.weight_ih.shape[-1]
    check_shape(f"{name}.weight_hh", weights.weight_hh, (3 * size, size))
    check_shape(f"{name}.weight_ih", weights.weight_ih, (3 * size, features))
    if (weights.bias_ih is None) != (weights.bias_hh is None) or (weights.bias_ih is None) != (
        like.bias_ih is None
    ):
        raise ValueError(
            f"{name}: expected bias_ih and bias_hh in every direction or in none, received a mixture"
        )
    for field, value in zip(weights._fields, weights):
        if value is not None:
            check_same_device(f"{name}.{field}", value, input)
            if field.startswith("bias"):
                check_shape(f"{name}.{field}", value, (3 * size,))


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
    weights = GRUWeights(*weights)
    check_tensor("input", input, (2,) if batch_sizes is not None else (3,))
    check_tensor("weights.weight_hh", weights.weight_hh, (2,))
    _check_weights("weights", weights, input, weights)
    if weights_reverse is not None:
        weights_reverse = GRUWeights(*weights_reverse)
        _check_weights("weights_reverse", weights_reverse, input, weights)
    size, features = weights.weight_hh.shape[1], weights.weight_ih.shape[1]
    if input.shape[-1] != features:
        raise ValueError(
            f"input: expected {features} features (input_size), received shape {tuple(input.shape)}"
        )
    if lengths is not None and batch_sizes is not None:
        raise ValueError("lengths: expected None with batch_sizes, received both")
    if batch_sizes is not None:
        if batch_sizes.device.type != "cpu" or batch_sizes.dtype != torch.int64 or batch_sizes.dim() != 1:
            raise ValueError(
                "batch_sizes: expected a 1-dimensional int64 tensor on the CPU, received "
                f"{batch_sizes.dtype} of shape {tuple(batch_sizes.shape)} on {batch_sizes.device}"
            )
        rows = None
    else:
        rows = input.shape[0 if batch_first else 1]
        lengths = lengths_on(input.device, "lengths", lengths, rows)
    if any(extent == 0 for extent in input.shape[:-1]):
        raise ValueError(
            f"input: expected at least one row and one frame, received shape {tuple(input.shape)}"
        )
    directions = 1 if weights_reverse is None else 2
    if h0 is not None:
        check_tensor("h0", h0, (3,))
        check_shape("h0", h0, (directions, h0.shape[1] if rows is None else rows, size))
        check_same_device("h0", h0, input)
    reverse = weights_reverse or GRUWeights(None, None)
    dtype = compute_dtype(input, h0=h0, weight_ih=weights.weight_ih, weight_hh=weights.weight_hh)
    tensors = [cast(w, dtype) for w in (*weights, *reverse)]
    run = _composed if input.device.type != "cpu" else _kernel
    output, h_n = run(input.to(dtype), lengths, batch_sizes, cast(h0, dtype), tensors, batch_first)
    result_dtype = output_dtype(input, weights.weight_hh)
    return output.to(result_dtype), h_n.to(result_dtype)


def _kernel(input, lengths, batch_sizes, h0, tensors, batch_first):
    differentiable = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (input, h0, *tensors)
    )
    output, h_n, _ = torch.ops.asrkern.gru(
        input, lengths, batch_sizes, h0, *tensors, batch_first, differentiable
    )
    return output, h_n


def _composed(input, lengths, batch_sizes, h0, tensors, batch_first):
    """torch's own GRU (cuDNN on CUDA), where asrkern has no kernel for the device."""
    flat = [t for t in tensors if t is not None]
    bias, bidirectional = tensors[2] is not None, tensors[4] is not None
    size = tensors[1].shape[1]
    if batch_sizes is None and lengths is not None:
        # PackedSequence has no rows without frames: they get one, which is masked afterwards.
        shown = lengths.clamp(min=1)
        packed = pack_padded_sequence(input, shown.cpu(), batch_first, enforce_sorted=False)
        h0_sorted = None if h0 is None else h0.index_select(1, packed.sorted_indices)
        data, h_n = _composed(packed.data, None, packed.batch_sizes, h0_sorted, tensors, False)
        output, _ = pad_packed_sequence(
            packed._replace(data=data), batch_first, total_length=input.shape[1 if batch_first else 0]
        )
        h_n = h_n.index_select(1, packed.unsorted_indices)
        empty = lengths == 0
        output = output.masked_fill(empty[:, None, None] if batch_first else empty[None, :, None], 0)
        return output, torch.where(empty[None, :, None], torch.zeros_like(h_n) if h0 is None else h0, h_n)
    rows = batch_sizes[0] if batch_sizes is not None else input.shape[0 if batch_first else 1]
    if h0 is None:
        h0 = input.new_zeros(2 if bidirectional else 1, rows, size)
    if batch_sizes is not None:
        return torch._VF.gru(input, batch_sizes, h0, flat, bias, 1, 0.0, False, bidirectional)
    return torch._VF.gru(input, h0, flat, bias, 1, 0.0, False, bidirectional, batch_first)


@torch.library.register_fake("asrkern::gru")
def _fake(
    input, lengths, batch_sizes, h0, weight_ih, weight_hh, bias_ih, bias_hh, weight_ih_reverse, weight_hh_reverse,
    bias_ih_reverse, bias_hh_reverse, batch_first, save_reserve,
):  # fmt: skip
    directions, size = (1 if weight_hh_reverse is None else 2), weight_hh.shape[1]
    output = input.new_empty((*input.shape[:-1], directions * size))
    if batch_sizes is None:
        rows = input.shape[0 if batch_first else 1]
    elif h0 is not None:
        rows = h0.shape[1]
    else:
        # The number of rows is the value batch_sizes[0].
        rows = torch.library.get_ctx().new_dynamic_size()
    frames = input.shape[0] if batch_sizes is not None else input.shape[0] * input.shape[1]
    reserve = input.new_empty((directions, frames, 4 * size) if save_reserve else (0,))
    return output, input.new_empty((directions, rows, size)), reserve


@torch.library.register_fake("asrkern::gru_backward")
def _fake_backward(
    grad_output, grad_h_n, input, lengths, batch_sizes, h0, weight_ih, weight_hh, weight_ih_reverse,
    weight_hh_reverse, output, reserve, batch_first,
):  # fmt: skip
    directions, size, features = grad_h_n.shape[0], weight_hh.shape[1], weight_ih.shape[1]
    return (
        input.new_empty(input.shape),
        input.new_empty(grad_h_n.shape),
        input.new_empty((directions, 3 * size, features)),
        input.new_empty((directions, 3 * size, size)),
        input.new_empty((directions, 3 * size)),
        input.new_empty((directions, 3 * size)),
    )


def _setup_context(ctx, inputs, output):
    input, lengths, batch_sizes, h0, *weights, ctx.batch_first, ctx.saved = inputs
    ctx.mark_non_differentiable(output[2])
    ctx.has_bias = weights[2] is not None
    ctx.save_for_backward(
        input, lengths, batch_sizes, h0, weights[0], weights[1], weights[4], weights[5], output[0], output[2]
    )


def _backward(ctx, grad_output, grad_h_n, _):
    if not ctx.saved:
        raise RuntimeError(
            "asrkern::gru: backward needs save_reserve=True in forward; asrkern.ops.gru sets it"
        )
    input, lengths, batch_sizes, h0, w_ih, w_hh, w_ih_reverse, w_hh_reverse, output, reserve = (
        ctx.saved_tensors
    )
    with torch.autocast(input.device.type, enabled=False):
        dx, dh0, dw_ih, dw_hh, db_ih, db_hh = torch.ops.asrkern.gru_backward(
            grad_output, grad_h_n, input, lengths, batch_sizes, h0, w_ih, w_hh, w_ih_reverse, w_hh_reverse, output,
            reserve, ctx.batch_first,
        )  # fmt: skip

    def of_direction(d: int) -> tuple[Tensor | None, ...]:
        if d == 1 and w_hh_reverse is None:
            return None, None, None, None
        return dw_ih[d], dw_hh[d], *((db_ih[d], db_hh[d]) if ctx.has_bias else (None, None))

    return dx, None, None, None if h0 is None else dh0, *of_direction(0), *of_direction(1), None, None


torch.library.register_autograd("asrkern::gru", _backward, setup_context=_setup_context)
raise_on_double_backward("gru_backward")
