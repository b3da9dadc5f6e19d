"""One step of a GRU or LSTM: what torch.nn.GRUCell and LSTMCell compute."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asrkern.ops._autograd import (
    call,
    detached,
    not_differentiable,
    raise_on_double_backward,
    register_autograd,
)
from asrkern.ops._common import (
    cast,
    check_same_device,
    check_shape,
    check_tensor,
    compute_dtype,
    output_dtype,
    register_fake,
)
from asrkern.ops._recurrent import RecurrentWeights, check_weights, differentiable
from asrkern.ops.gru import CELL as GRU
from asrkern.ops.gru import GRUWeights
from asrkern.ops.lstm import CELL as LSTM
from asrkern.ops.lstm import LSTMWeights

Scales = tuple[Tensor | None, Tensor | None]
_STORED = (torch.float32, torch.bfloat16, torch.int8)


class PackedCellWeights(NamedTuple):
    """The parameters of a cell for :func:`gru_cell_prepacked` or :func:`lstm_cell_prepacked`.

    packed_ih, packed_hh: :func:`pack_cell_weight` of weight_ih and weight_hh, in one dtype; scale_ih, scale_hh, bias_ih,
    bias_hh: [gates·hidden_size] or None.
    """

    packed_ih: Tensor
    scale_ih: Tensor | None
    packed_hh: Tensor
    scale_hh: Tensor | None
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None


def gru_cell(input: Tensor, weights: GRUWeights, h: Tensor, *, scales: Scales | None = None) -> Tensor:
    """One step of :func:`gru`, for every row.

    On the CPU in float32 a row is bit-identical whatever its batch mates, and to a step of :func:`gru`.

    Args:
        input: [N, input_size]; float32 or float64; lower precisions are computed in float32.
        weights: :class:`GRUWeights`.
        h: [N, hidden_size], the state before.
        scales: None; or, for int8 or bfloat16 weights of :func:`quantize_weight`, those of weight_ih and weight_hh
            (None for bfloat16). Then the step is for inference on the CPU, in float32, and has no derivative.

    Returns:
        The state after it, [N, hidden_size].

    Raises:
        TypeError: not a floating-point tensor, or float64 with another dtype.
        ValueError: shapes or devices that do not fit.
    """
    return _step(GRU, input, weights, {"h": h}, scales)[0]


def lstm_cell(
    input: Tensor, weights: LSTMWeights, h: Tensor, c: Tensor, *, scales: Scales | None = None
) -> tuple[Tensor, Tensor]:
    """One step of :func:`lstm`, for every row.

    On the CPU in float32 a row is bit-identical whatever its batch mates, and to a step of :func:`lstm`.

    Args:
        weights: :class:`LSTMWeights`.
        h, c: [N, hidden_size], the states before.
        input, scales: as in :func:`gru_cell`.

    Returns:
        h and c after it, [N, hidden_size] each.

    Raises:
        TypeError, ValueError: as :func:`gru_cell`.
    """
    return _step(LSTM, input, weights, {"h": h, "c": c}, scales)


def pack_cell_weight(weight: Tensor, gates: int) -> Tensor:
    """A weight of a cell in the order of this process' kernels: not for storing.

    Args:
        weight: [gates·hidden_size, features], weight_ih or weight_hh, in float32, bfloat16 or int8 on the CPU.
        gates: 3 of a GRU, 4 of an LSTM.

    Returns:
        One dimension, of the same dtype.

    Raises:
        TypeError: weight is not a tensor.
        ValueError: another shape, dtype or device, or another number of gates.
    """
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight: expected a Tensor, received {type(weight).__name__}")
    if gates not in (3, 4):
        raise ValueError(f"gates: expected 3 or 4, received {gates!r}")
    if weight.dtype not in _STORED or weight.dim() != 2 or weight.shape[0] % gates or weight.numel() == 0:
        raise ValueError(
            f"weight: expected [{gates}·hidden_size, features] of float32, bfloat16 or int8, received "
            f"{weight.dtype} of shape {tuple(weight.shape)}"
        )
    if weight.device.type != "cpu":
        raise ValueError(f"weight: expected a tensor on the CPU, received one on {weight.device}")
    return call("speller_pack", weight.detach(), gates)


def gru_cell_prepacked(input: Tensor, weights: PackedCellWeights, h: Tensor) -> Tensor:
    """:func:`gru_cell` for inference, over weights that were packed before: the same bits.

    Args:
        input: [N, input_size] on the CPU; computed in float32.
        weights: :class:`PackedCellWeights`.
        h: [N, hidden_size], the state before.

    Returns:
        The state after it, [N, hidden_size], in the dtype of input.

    Raises:
        TypeError: not a floating-point tensor, or something is no tensor.
        ValueError: shapes, dtypes or devices that do not fit, or weights that were packed for another size.
    """
    return _prepacked_step(GRU, input, weights, {"h": h})


def lstm_cell_prepacked(
    input: Tensor, weights: PackedCellWeights, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`lstm_cell` for inference, over weights that were packed before: the same bits.

    Args:
        input, weights: as in :func:`gru_cell_prepacked`.
        h, c: [N, hidden_size], the states before.

    Returns:
        h and c after it, [N, hidden_size] each, in the dtype of input.

    Raises:
        TypeError, ValueError: as :func:`gru_cell_prepacked`.
    """
    return _prepacked_step(LSTM, input, weights, {"h": h, "c": c})


def _prepacked_step(cell, input, weights, states):
    weights = PackedCellWeights(*weights)
    check_tensor("input", input, (2,))
    check_tensor("h", states["h"], (2,))
    size = states["h"].shape[1]
    for name, state in states.items():
        check_shape(name, state, (input.shape[0], size))
    compute_dtype(input, **states)
    for name in ("packed_ih", "packed_hh"):
        packed = getattr(weights, name)
        if not isinstance(packed, Tensor):
            raise TypeError(f"weights.{name}: expected a Tensor, received {type(packed).__name__}")
        if packed.dtype not in _STORED or packed.dtype != weights.packed_ih.dtype or packed.dim() != 1:
            raise ValueError(
                f"weights.{name}: expected what pack_cell_weight returns, of one dtype, received {packed.dtype} of "
                f"shape {tuple(packed.shape)}"
            )
    _check_biases(weights)
    for name in ("scale_ih", "scale_hh", "bias_ih", "bias_hh"):
        if getattr(weights, name) is not None:
            check_shape(f"weights.{name}", getattr(weights, name), (cell.gates * size,))
    if input.device.type != "cpu":
        raise ValueError(f"input: expected a tensor on the CPU, received one on {input.device}")
    x, *before = (detached(t).float() for t in (input, *states.values()))
    packed_ih, scale_ih, packed_hh, *rest = weights
    scale_ih, *rest = (cast(t, torch.float32) for t in (scale_ih, *rest))
    tensors = (None if t is None else t.detach() for t in (packed_ih, scale_ih, packed_hh, *rest))
    *results, _ = (r.to(input.dtype) for r in call(f"{cell.name}_cell_prepacked", x, *before, *tensors))
    return results[0] if cell is GRU else tuple(results)


def _check_biases(weights) -> None:
    if (weights.bias_ih is None) != (weights.bias_hh is None):
        raise ValueError("weights: expected bias_ih and bias_hh or neither, received one of them")


def _step(cell, input, weights, states, scales):
    weights = RecurrentWeights(*weights)
    check_tensor("input", input, (2,))
    if scales is None:
        check_weights(cell, "weights", weights, input, weights)
    else:
        _check_quantized(cell, weights, scales, input)
    check_shape("input", input, (input.shape[0], weights.weight_ih.shape[1]))
    for name, state in states.items():
        check_shape(name, state, (input.shape[0], weights.weight_hh.shape[1]))
        check_same_device(name, state, input)
    if scales is not None:
        floats = [cast(t, torch.float32) for t in (*scales, *weights[2:])]
        tensors = (weights.weight_ih, floats[0], weights.weight_hh, *floats[1:])
        x, *before = (detached(t).float() for t in (input, *states.values()))
        *results, _ = call(f"{cell.name}_cell", x, *before, *tensors, False)
        return tuple(result.to(input.dtype) for result in results)
    dtype = compute_dtype(input, **states, weight_ih=weights.weight_ih, weight_hh=weights.weight_hh)
    x, *before = (t.to(dtype) for t in (input, *states.values()))
    tensors = [cast(w, dtype) for w in weights]
    if input.device.type == "cpu":
        w_ih, w_hh, *biases = tensors
        save_reserve = differentiable(x, before, tensors)
        *results, _ = call(f"{cell.name}_cell", x, *before, w_ih, None, w_hh, None, *biases, save_reserve)
    elif cell is GRU:
        results = (torch.gru_cell(x, *before, *tensors),)
    else:
        results = torch.lstm_cell(x, before, *tensors)
    return tuple(result.to(output_dtype(input, weights.weight_hh)) for result in results)


def _check_quantized(cell, weights, scales, input) -> None:
    size = weights.weight_hh.shape[-1]
    expected = {"weight_ih": (cell.gates * size, input.shape[1]), "weight_hh": (cell.gates * size, size)}
    for (name, shape), scale in zip(expected.items(), scales, strict=True):
        weight = getattr(weights, name)
        if weight.dtype not in (torch.int8, torch.bfloat16) or weight.dtype != weights.weight_ih.dtype:
            raise ValueError(
                f"weights.{name}: expected int8 or bfloat16, as weight_ih, with scales, received {weight.dtype}"
            )
        if tuple(weight.shape) != shape:
            raise ValueError(f"weights.{name}: expected shape {shape}, received {tuple(weight.shape)}")
        if scale is not None:
            check_shape(f"scales of {name}", scale, shape[:1])
    _check_biases(weights)
    for name in ("bias_ih", "bias_hh"):
        if getattr(weights, name) is not None:
            check_shape(f"weights.{name}", getattr(weights, name), (cell.gates * size,))
    if input.device.type != "cpu":
        raise ValueError(f"input: expected a tensor on the CPU with scales, received one on {input.device}")


def _register(cell) -> None:
    count = len(cell.states)
    name, backward_name = f"{cell.name}_cell", f"{cell.name}_cell_backward"

    def fake(input, *others):
        *states, _w_ih, _s_ih, _w_hh, _s_hh, _b_ih, _b_hh, save_reserve = others
        rows, size = input.shape[0], states[0].shape[1]
        reserve = input.new_empty((rows if save_reserve else 0, cell.saved * size))
        return *(input.new_empty((rows, size)) for _ in states), reserve

    def fake_backward(grad_h, *_others):
        rows, size = grad_h.shape
        # A GRU's gates have a gradient for the input's product, and another for the state's.
        gates = [grad_h.new_empty((rows, cell.gates * size)) for _ in range(3 - count)]
        return *gates, grad_h.new_empty((rows, size))

    def setup_context(ctx, inputs, output):
        input, *rest = inputs
        *states, weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, _bias_hh, save_reserve = rest
        *_after, reserve = output
        # It keeps its graph, so that a second derivative comes to the backward's own, which raises.
        ctx.set_materialize_grads(False)
        quantised = any(t is not None for t in (scale_ih, scale_hh))
        ctx.has_derivative, ctx.has_bias = save_reserve and not quantised, bias_ih is not None
        ctx.save_for_backward(input, *states, weight_ih, weight_hh, reserve)

    def backward(ctx, *grads):
        if not ctx.has_derivative:
            raise RuntimeError(
                f"asrkern::{name}: backward needs save_reserve=True in forward and weights without scales; "
                f"asrkern.ops.{name} sets it"
            )
        input, *states, weight_ih, weight_hh, reserve = ctx.saved_tensors
        # The last state is what the gates' gradients need: c of an LSTM, h of a GRU.
        with torch.autocast(input.device.type, enabled=False):
            *after, _grad_reserve = grads
            after = [torch.zeros_like(states[0]) if grad is None else grad for grad in after]
            *gates, grad_before = call(backward_name, *after, states[-1], reserve)
            of_x, of_h = gates[0], gates[-1]
            of_input, of_state, *rest = ctx.needs_input_grad
            of_ih, _, of_hh, *_ = rest[count - 1 :]
            grad_h = of_h @ weight_hh if of_state else None
            if count == 2:
                before = (grad_h, grad_before)
            else:
                before = (None if grad_h is None else grad_h + grad_before,)
            return (
                of_x @ weight_ih if of_input else None,
                *before,
                *(of_x.t() @ input if of_ih else None, None),
                *(of_h.t() @ states[0] if of_hh else None, None),
                *((of_x.sum(0), of_h.sum(0)) if ctx.has_bias else (None, None)),
                None,
            )

    def fake_prepacked(input, *others):
        # save_reserve comes last, and is left out where it is False.
        return fake(input, *(*others, False)[: count + 7])

    register_fake(f"asrkern::{name}_prepacked")(fake_prepacked)
    not_differentiable(f"{name}_prepacked")
    register_fake(f"asrkern::{name}")(fake)
    register_fake(f"asrkern::{backward_name}")(fake_backward)
    register_autograd(name, backward, setup_context)
    raise_on_double_backward(backward_name)


_register(GRU)
_register(LSTM)
