"""asrkern's operations in standard ONNX operators, for ``torch.onnx.export(..., dynamo=True)``.

    torch.onnx.export(model.eval(), (x, lengths), "model.onnx", dynamo=True, dynamic_shapes=...,
                      custom_translation_table=asrkern.onnx.translations())

Lengths stay an input: recurrent layers get them as ``sequence_lens``, others mask their output. Quantised layers keep
their int8 or bfloat16 weights in the file and multiply in float32. Needs the extra ``onnx``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from asrkern import ops  # noqa: F401  (the operations have to exist)
from asrkern._optional import require

_onnx = require("onnx", "onnx")
op = require("onnxscript", "onnx").opset18

# Torch's gates in the order of ONNX: r z n as z r n, i f g o as i o f g.
_GRU_GATES = (1, 0, 2)
_LSTM_GATES = (0, 3, 1, 2)


def translations() -> dict[Callable, Callable]:
    """What ``torch.onnx.export`` takes as ``custom_translation_table``.

    The table raises for what has no standard operator: batches that are packed, batch norms in training mode, the CTC
    beam search, steps of a speller.
    """
    table = {
        "attention": _attention,
        "batch_norm_act": _batch_norm_act,
        "ctc_beam_search": _ctc_beam_search,
        "gru": _gru,
        "gru_cell": _gru_cell,
        "gru_cell_prepacked": _frozen,
        "gru_pack": _pack,
        "gru_prepacked": _gru_prepacked,
        "linear": _linear,
        "linear_heads": _linear_heads,
        "linear_quantized": _linear_quantized,
        "lstm": _lstm,
        "lstm_cell": _lstm_cell,
        "lstm_cell_prepacked": _frozen,
        "lstm_pack": _pack,
        "lstm_prepacked": _lstm_prepacked,
        "masked_conv2d": _masked_conv2d,
        "masked_conv2d_batch_norm_act": _training,
        "speller_beam": _speller,
        "speller_greedy": _speller,
        "speller_pack": _speller,
        "speller_step": _speller,
    }
    return {getattr(torch.ops.asrkern, name).default: function for name, function in table.items()}


def _linear(input, weight, bias):
    output = op.MatMul(input, op.Transpose(weight, perm=[1, 0]))
    return output if bias is None else op.Add(output, bias)


def _linear_quantized(input, weight, scale, bias, int8_activations: bool = False):
    # Activations of eight bits, here and below, are float32 in ONNX, which rounds them for a whole tensor at once or not.
    return _linear(input, _float(weight, scale), bias)


def _linear_heads(input, weight, scale, bias, heads: int, transposed: bool):
    width, features = weight.shape[0] // heads, weight.shape[1]
    w = op.Reshape(_float(weight, None), op.Constant(value_ints=[heads, width, features]))
    if not transposed:
        w = op.Transpose(w, perm=[0, 2, 1])
    x = op.Reshape(input, op.Constant(value_ints=[-1, heads, width if transposed else features]))
    y = op.Transpose(op.MatMul(op.Transpose(x, perm=[1, 0, 2]), w), perm=[1, 0, 2])
    y = op.Reshape(y, op.Constant(value_ints=[-1, heads * (features if transposed else width)]))
    y = y if scale is None else op.Mul(y, scale)
    return y if bias is None else op.Add(y, bias)


def _attention(
    query, key, value, query_lengths, key_lengths, bias, heads: int, key_heads: int, causal: bool, scale: float
):  # fmt: skip
    """Of rows of one length, as the layers export them."""
    if key_heads != heads:
        raise ValueError("attention: heads that share keys have no translation")
    rows = op.Shape(query_lengths)

    def by_heads(x):
        shape = op.Concat(rows, op.Constant(value_ints=[-1, heads, x.shape[1] // heads]), axis=0)
        return op.Transpose(op.Reshape(x, shape), perm=[0, 2, 1, 3])

    scores = op.MatMul(by_heads(query), op.Transpose(by_heads(key), perm=[0, 1, 3, 2]))
    scores = op.Mul(scores, op.Constant(value_float=scale))
    if bias is not None:
        scores = op.Add(scores, bias)
    if causal:
        seen = op.Trilu(op.Expand(op.Constant(value_float=1.0), op.Shape(scores)), upper=0)
        hidden = op.Constant(value_float=float("-inf"))
        scores = op.Where(op.Cast(seen, to=_onnx.TensorProto.BOOL), scores, hidden)
    weights = op.Softmax(scores, axis=-1)
    # A query that sees no key.
    weights = op.Where(op.IsNaN(weights), op.Constant(value_float=0.0), weights)
    y = op.Transpose(op.MatMul(weights, by_heads(value)), perm=[0, 2, 1, 3])
    return op.Reshape(y, op.Constant(value_ints=[-1, value.shape[1]]))


def _float(weight, scale):
    if weight is None:
        return None
    weight = op.Cast(weight, to=_onnx.TensorProto.FLOAT)
    return weight if scale is None else op.Mul(weight, op.Unsqueeze(scale, [1]))


def _gru(
    input, lengths, batch_sizes, h0,
    weight_ih, weight_hh, bias_ih, bias_hh, weight_ih_r, weight_hh_r, bias_ih_r, bias_hh_r,
    batch_first: bool, save_reserve: bool,
):  # fmt: skip
    directions = _directions(
        (weight_ih, weight_hh, bias_ih, bias_hh), (weight_ih_r, weight_hh_r, bias_ih_r, bias_hh_r)
    )
    output, h_n = _recurrent(input, lengths, batch_sizes, (h0,), directions, weight_hh.shape[1], batch_first)
    return output, h_n, _no_reserve()


def _lstm(
    input, lengths, batch_sizes, h0, c0,
    weight_ih, weight_hh, bias_ih, bias_hh, weight_ih_r, weight_hh_r, bias_ih_r, bias_hh_r,
    batch_first: bool, save_reserve: bool,
):  # fmt: skip
    directions = _directions(
        (weight_ih, weight_hh, bias_ih, bias_hh), (weight_ih_r, weight_hh_r, bias_ih_r, bias_hh_r)
    )
    output, *finals = _recurrent(
        input, lengths, batch_sizes, (h0, c0), directions, weight_hh.shape[1], batch_first
    )
    return output, *finals, _no_reserve()


def _gru_cell(
    input, h, weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh, save_reserve: bool
):  # fmt: skip
    weights = (weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh)
    return _cell(input, (h,), weights)


def _lstm_cell(
    input, h, c, weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh, save_reserve: bool
):  # fmt: skip
    weights = (weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh)
    return _cell(input, (h, c), weights)


def _cell(input, states, weights):
    """A layer of one frame."""
    direction = _dequantized(*weights)
    size = weights[2].shape[1]
    states = [op.Unsqueeze(state, [0]) for state in states]
    _, *finals = _recurrent(op.Unsqueeze(input, [0]), None, None, states, [direction], size, False)
    return *(op.Squeeze(final, [0]) for final in finals), _no_reserve()


def _frozen(*_: Any, **__: Any):
    raise ValueError(
        "a frozen cell: its weights are in the order of this CPU; asrkern.nn.unfreeze(model) gives them back"
    )


def _no_reserve():
    # What backward needs: nobody reads it in inference.
    return op.Constant(value_float=0.0)


def _pack(weight_hh, int8_activations: bool = False):
    # The order that asrkern's kernels read is nobody else's.
    return op.Identity(weight_hh)


def _gru_prepacked(
    input, lengths, batch_sizes, h0,
    weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh,
    weight_ih_r, scale_ih_r, weight_hh_r, scale_hh_r, bias_ih_r, bias_hh_r,
    batch_first: bool, int8_activations: bool = False,
):  # fmt: skip
    forward = (weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh)
    reverse = (weight_ih_r, scale_ih_r, weight_hh_r, scale_hh_r, bias_ih_r, bias_hh_r)
    return _prepacked(input, lengths, batch_sizes, (h0,), forward, reverse, batch_first)


def _lstm_prepacked(
    input, lengths, batch_sizes, h0, c0,
    weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh,
    weight_ih_r, scale_ih_r, weight_hh_r, scale_hh_r, bias_ih_r, bias_hh_r,
    batch_first: bool, int8_activations: bool = False,
):  # fmt: skip
    forward = (weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh)
    reverse = (weight_ih_r, scale_ih_r, weight_hh_r, scale_hh_r, bias_ih_r, bias_hh_r)
    return _prepacked(input, lengths, batch_sizes, (h0, c0), forward, reverse, batch_first)


def _prepacked(input, lengths, batch_sizes, states, forward, reverse, batch_first):
    directions = _directions(_dequantized(*forward), _dequantized(*reverse))
    size = forward[0].shape[0] // len(_gates(states))
    return _recurrent(input, lengths, batch_sizes, states, directions, size, batch_first)


def _gates(states):
    # An LSTM has two states.
    return _LSTM_GATES if len(states) == 2 else _GRU_GATES


def _directions(*directions):
    # One or two, of weight_ih, weight_hh, bias_ih, bias_hh.
    return [direction for direction in directions if direction[0] is not None]


def _dequantized(weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh):
    return _float(weight_ih, scale_ih), _float(weight_hh, scale_hh), bias_ih, bias_hh


def _recurrent(input, lengths, batch_sizes, states, directions, size, batch_first):
    """Output and final states of a layer of ``size`` units."""
    if batch_sizes is not None:
        raise ValueError("input: expected a padded batch, which ONNX has, received a PackedSequence")
    order = [gate * size + unit for gate in _gates(states) for unit in range(size)]

    def reordered(value):
        return op.Gather(value, order, axis=0)

    def of_directions(values):
        return op.Concat(*(op.Unsqueeze(value, [0]) for value in values), axis=0)

    x = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input
    bias = None
    if directions[0][2] is not None:
        bias = of_directions([op.Concat(reordered(d[2]), reordered(d[3]), axis=0) for d in directions])
    arguments = (
        x,
        of_directions([reordered(d[0]) for d in directions]),
        of_directions([reordered(d[1]) for d in directions]),
        bias,
        None if lengths is None else op.Cast(lengths, to=_onnx.TensorProto.INT32),
        *states,
    )
    options = {
        "hidden_size": size,
        "direction": "forward" if len(directions) == 1 else "bidirectional",
    }
    if len(states) == 2:
        y, *finals = op.LSTM(*arguments, **options)
    else:
        y, *finals = op.GRU(*arguments, **options, linear_before_reset=1)
    if lengths is not None:
        # Rows without frames keep their initial state.
        empty = op.Unsqueeze(op.Equal(lengths, 0), [0, 2])
        finals = [f if s is None else op.Where(empty, s, f) for s, f in zip(states, finals)]
    # [T, directions, N, hidden_size] → features of both directions side by side.
    y = op.Transpose(y, perm=[2, 0, 1, 3] if batch_first else [0, 2, 1, 3])
    return op.Reshape(y, [0, 0, -1]), *finals


def _batch_norm_act(
    input, weight, bias, running_mean, running_var, lengths,
    layout: str, training: bool, count_padding: bool, eps: float, min: float, max: float,
):  # fmt: skip
    if training:
        _training()
    scale = op.Reciprocal(op.Sqrt(op.Add(running_var, eps)))
    scale = scale if weight is None else op.Mul(scale, weight)
    y = op.Mul(op.Sub(input, _channels(running_mean, layout)), _channels(scale, layout))
    y = y if bias is None else op.Add(y, _channels(bias, layout))
    y = _masked(_clamped(y, min, max), lengths, layout)
    # Mean, variance and count serve the running statistics.
    return y, op.Identity(running_mean), op.Identity(running_var), op.Size(input)


def _training(*_: Any):
    raise ValueError(
        "model: expected eval mode, received a batch norm that takes the statistics of its batch"
    )


def _masked_conv2d(
    input,
    weight,
    bias,
    scale,
    shift,
    lengths,
    output_lengths,
    stride,
    padding,
    min: float,
    max: float,
    pool=(1, 1),
    groups: int = 1,
):
    pads = [*padding, *padding]
    y = op.Conv(_masked(input, lengths, "NCFT"), weight, bias, strides=list(stride), pads=pads, group=groups)
    y = y if scale is None else op.Mul(y, _channels(scale, "NCFT"))
    y = y if shift is None else op.Add(y, _channels(shift, "NCFT"))
    if output_lengths is None and lengths is not None:
        # Integer division rounds towards zero: what is below stays out of it.
        over = op.Add(lengths, 2 * padding[1] - weight.shape[3])
        frames = op.Add(op.Div(over, stride[1]), 1)
        output_lengths = op.Where(op.And(op.Greater(lengths, 0), op.GreaterOrEqual(over, 0)), frames, 0)
    y = _masked(_clamped(y, min, max), output_lengths, "NCFT")
    if list(pool) == [1, 1]:
        return y
    y = op.MaxPool(y, kernel_shape=list(pool), strides=list(pool))
    return _masked(y, None if output_lengths is None else op.Div(output_lengths, pool[1]), "NCFT")


def _ctc_beam_search(*_: Any):
    raise ValueError("ctc_beam_search: ONNX has no such operator; export the model, and decode its log_probs")


def _speller(*_: Any):
    raise ValueError(
        "speller: ONNX has no such operator; steps of a search are for the process that searches"
    )


def _channels(value, layout: str):
    """A value for each channel, against a tensor of these axes."""
    after = len(layout) - 1 - layout.index("C")
    return op.Unsqueeze(value, list(range(1, after + 1))) if after else value


def _clamped(x, low: float, high: float):
    # The largest number stands for infinity: see asrkern.ops._autograd.call.
    bounds = [None if abs(bound) >= sys.float_info.max else op.CastLike(bound, x) for bound in (low, high)]
    return x if all(bound is None for bound in bounds) else op.Clip(x, *bounds)


def _masked(x, lengths, layout: str):
    """x with 0 beyond each row's length."""
    if lengths is None:
        return x
    batch, time = layout.index("N"), layout.index("T")
    steps = op.Range(0, op.Squeeze(op.Shape(x, start=time, end=time + 1)), 1)
    valid = op.Less(steps, op.Unsqueeze(lengths, [1]))
    valid = valid if batch < time else op.Transpose(valid, perm=[1, 0])
    valid = op.Unsqueeze(valid, [axis for axis in range(len(layout)) if axis not in (batch, time)])
    return op.Where(valid, x, op.CastLike(0.0, x))
