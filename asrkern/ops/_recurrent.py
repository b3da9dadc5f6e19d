"""What the recurrent operations share: checks, the way to the kernel, fake kernels and autograd."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asrkern import _library
from asrkern._lengths import Lengths, as_integers
from asrkern._transforms import transforming
from asrkern.ops._autograd import (
    call,
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
    lengths_on,
    output_dtype,
    register_fake,
)


class Cell(NamedTuple):
    """A recurrent operation ``torch.ops.asrkern.<name>``.

    gates: how many, each of hidden_size values; saved: how many values of a unit backward needs; states: names of the
    initial states, the output's first.
    """

    name: str
    gates: int
    saved: int
    states: tuple[str, ...]


class RecurrentWeights(NamedTuple):
    """The parameters of one direction, as torch.nn keeps them.

    weight_ih: [gates·hidden_size, input_size]; weight_hh: [gates·hidden_size, hidden_size]; bias_ih, bias_hh:
    [gates·hidden_size], both or neither.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None


_NO_WEIGHTS = RecurrentWeights(None, None)  # type: ignore[arg-type]  # of a direction that is not there


class _Arguments(NamedTuple):
    """The arguments of ``torch.ops.asrkern.<name>``: see ``csrc/schema.cpp``."""

    input: Tensor
    lengths: Tensor | None
    batch_sizes: Tensor | None
    states: tuple[Tensor | None, ...]
    weights: RecurrentWeights
    weights_reverse: RecurrentWeights
    batch_first: bool
    save_reserve: bool

    @classmethod
    def of(cls, cell: Cell, values: Sequence[Any]) -> _Arguments:
        """From the arguments in the order of the schema, where states and weights stand one by one."""
        input, lengths, batch_sizes, *rest = values
        states, (*weights, batch_first, save_reserve) = _split(rest, len(cell.states))
        forward, reverse = _split(weights, len(RecurrentWeights._fields))
        return cls(
            input,
            lengths,
            batch_sizes,
            tuple(states),
            RecurrentWeights(*forward),
            RecurrentWeights(*reverse),
            batch_first,
            save_reserve,
        )


class _Saved(NamedTuple):
    """What backward needs of forward, in the order of ``torch.ops.asrkern.<name>_backward``."""

    input: Tensor
    lengths: Tensor | None
    batch_sizes: Tensor | None
    states: tuple[Tensor | None, ...]
    weight_ih: Tensor
    weight_hh: Tensor
    weight_ih_reverse: Tensor | None
    weight_hh_reverse: Tensor | None
    output: Tensor
    reserve: Tensor

    @classmethod
    def of(cls, cell: Cell, values: Sequence[Any]) -> _Saved:
        """From :meth:`flat` values."""
        input, lengths, batch_sizes, *rest = values
        states, rest = _split(rest, len(cell.states))
        return cls(input, lengths, batch_sizes, tuple(states), *rest)

    def flat(self) -> tuple[Tensor | None, ...]:
        """All values, the states one by one."""
        input, lengths, batch_sizes, states, *rest = self
        return (input, lengths, batch_sizes, *states, *rest)


class _PackedDirection(NamedTuple):
    """One direction's weights of ``torch.ops.asrkern.<name>_prepacked``."""

    weight_ih: Tensor | None
    scale_ih: Tensor | None
    packed_hh: Tensor | None
    scale_hh: Tensor | None
    bias_ih: Tensor | None
    bias_hh: Tensor | None


def _split(values: Sequence[Any], count: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """The first ``count`` values, and the others."""
    return values[:count], values[count:]


def check_weights(
    cell: Cell, name: str, weights: RecurrentWeights, input: Tensor, like: RecurrentWeights
) -> None:
    for field in ("weight_ih", "weight_hh"):
        check_tensor(f"{name}.{field}", getattr(weights, field), (2,))
    size, features = like.weight_hh.shape[1], like.weight_ih.shape[-1]
    check_shape(f"{name}.weight_hh", weights.weight_hh, (cell.gates * size, size))
    check_shape(f"{name}.weight_ih", weights.weight_ih, (cell.gates * size, features))
    if (weights.bias_ih is None) != (weights.bias_hh is None) or (weights.bias_ih is None) != (
        like.bias_ih is None
    ):
        raise ValueError(
            f"{name}: expected bias_ih and bias_hh in every direction or in none, received a mixture"
        )
    for field, value in zip(weights._fields, weights):
        if value is not None:
            if field.startswith("bias"):
                check_shape(f"{name}.{field}", value, (cell.gates * size,))
            check_same_device(f"{name}.{field}", value, input)


def check_batch(
    cell: Cell,
    input: Tensor,
    features: int,
    directions: int,
    size: int,
    states: tuple[Tensor | None, ...],
    lengths: Lengths | None,
    batch_sizes: Lengths | None,
    batch_first: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Check a batch against a layer of ``size`` units; returns lengths and batch_sizes as the kernels take them."""
    check_tensor("input", input, (2,) if batch_sizes is not None else (3,))
    if input.shape[-1] != features:
        raise ValueError(
            f"input: expected {features} features (input_size), received shape {tuple(input.shape)}"
        )
    if lengths is not None and batch_sizes is not None:
        raise ValueError("lengths: expected None with batch_sizes, received both")
    if batch_sizes is not None:
        batch_sizes = as_integers("batch_sizes", batch_sizes, ("T",)).to(torch.int64)
        if batch_sizes.device.type != "cpu":
            raise ValueError(
                f"batch_sizes: expected integers on the CPU, received those on {batch_sizes.device}"
            )
        rows = lengths = None
    else:
        rows = input.shape[0 if batch_first else 1]
        lengths = lengths_on(input.device, "lengths", lengths, rows)
    if input.shape[0 if batch_sizes is not None or not batch_first else 1] == 0:
        raise ValueError(f"input: expected at least one frame, received shape {tuple(input.shape)}")
    for name, state in zip(cell.states, states):
        if state is not None:
            check_tensor(name, state, (3,))
            # The value batch_sizes[0] is not read here: the operation compares.
            rows = state.shape[1] if rows is None else rows
            check_shape(name, state, (directions, rows, size))
            check_same_device(name, state, input)
    return lengths, batch_sizes


def run_layer(
    cell: Cell,
    input: Tensor,
    weights: RecurrentWeights,
    weights_reverse: RecurrentWeights | None,
    states: tuple[Tensor | None, ...],
    lengths: Lengths | None,
    batch_sizes: Lengths | None,
    batch_first: bool,
) -> Any:
    """Check everything and run one layer: (output, *final states). ``states`` are the initial ones, or None."""
    weights = RecurrentWeights(*weights)
    check_tensor("input", input)
    check_weights(cell, "weights", weights, input, weights)
    if weights_reverse is not None:
        weights_reverse = RecurrentWeights(*weights_reverse)
        check_weights(cell, "weights_reverse", weights_reverse, input, weights)
    size, features = weights.weight_hh.shape[1], weights.weight_ih.shape[1]
    directions = 1 if weights_reverse is None else 2
    lengths, batch_sizes = check_batch(
        cell, input, features, directions, size, states, lengths, batch_sizes, batch_first
    )
    reverse = weights_reverse or _NO_WEIGHTS
    initial = dict(zip(cell.states, states))
    dtype = compute_dtype(input, **initial, weight_ih=weights.weight_ih, weight_hh=weights.weight_hh)
    result_dtype = output_dtype(input, weights.weight_hh)
    run = _kernel if input.device.type == "cpu" else _composed
    tensors = (*weights, *reverse)
    if _takes_cuda(cell, input, states, tensors, batch_sizes, batch_first):
        run, dtype = _cuda_kernel, _cuda_dtype(result_dtype)
    tensors = [cast(w, dtype) for w in tensors]
    states = tuple(cast(state, dtype) for state in states)
    results = run(cell, input.to(dtype), lengths, batch_sizes, states, tensors, batch_first)
    return tuple(result.to(result_dtype) for result in results)


# The names of forward and backward kernel that _library.cuda_kernel knows.
_CUDA_KERNELS = {"gru": ("gru_forward", "gru_backward")}


def _cuda_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that the CUDA kernels compute in: the given one, or autocast's."""
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else dtype


def _takes_cuda(cell, input, states, tensors, batch_sizes, batch_first) -> bool:
    """Whether the cell's own CUDA kernels run, rather than cuDNN."""
    if not input.is_cuda or cell.name not in _CUDA_KERNELS or input.numel() == 0:
        return False
    weight_hh, weight_hh_reverse = tensors[1], tensors[5]
    dtype = _cuda_dtype(output_dtype(input, weight_hh))
    if dtype not in (torch.float32, torch.bfloat16, torch.float16) or input.dtype == torch.float64:
        return False
    kernels = _CUDA_KERNELS[cell.name][: 2 if differentiable(input, states, tensors) else 1]
    if not all(_library.cuda_kernel(name) for name in kernels):
        return False
    directions = 1 if weight_hh_reverse is None else 2
    most = min(
        _cuda_rows(cell.name, input.get_device(), dtype.itemsize, weight_hh.shape[1], directions, backward)
        for backward in (False, True)[: len(kernels)]
    )
    if batch_sizes is None:
        return input.shape[0 if batch_first else 1] <= most
    # A tracer does not know the value batch_sizes[0].
    return most > 0 if torch.compiler.is_compiling() else int(batch_sizes[0]) <= most


@functools.cache
def _ask_cuda_rows(
    name: str, device: int, value_bytes: int, size: int, directions: int, backward: bool
) -> int:
    op = getattr(torch.ops.asrkern, f"{name}_cuda_rows")
    return op(device, value_bytes, size, directions, backward)


def _cuda_rows(*layer) -> int:
    """Up to how many rows the CUDA kernel is to run; 0 for never."""
    return _ask_cuda_rows(*layer)


# In a trace it is a number, as _library.cuda_kernel is.
_cuda_rows._dynamo_marked_constant = True  # type: ignore[attr-defined]


def differentiable(input, states, tensors) -> bool:
    # A trace may be trained later, and torch checks it in another grad mode than it was made in.
    # A mapped tensor does not say whether the tensor that it is mapped over requires a gradient.
    return (torch.is_grad_enabled() and transforming()) or (
        (torch.is_grad_enabled() or torch.jit.is_tracing())
        and any(t is not None and t.requires_grad for t in (input, *states, *tensors))
    )


def _kernel(cell, input, lengths, batch_sizes, states, tensors, batch_first):
    save_reserve = differentiable(input, states, tensors)
    *results, _ = call(cell.name, input, lengths, batch_sizes, *states, *tensors, batch_first, save_reserve)
    return results


def _cuda_kernel(*arguments):
    """:func:`_kernel` without autocast, since its matrix products are torch's: they keep the dtype of their tensors."""
    with torch.autocast("cuda", enabled=False):
        return _kernel(*arguments)


def _composed(cell, input, lengths, batch_sizes, states, tensors, batch_first):
    """torch's own layer (cuDNN on CUDA), where asrkern has no kernel for the device."""
    flat = [t for t in tensors if t is not None]
    bias, bidirectional = tensors[2] is not None, tensors[4] is not None
    size = tensors[1].shape[1]
    if batch_sizes is None and lengths is not None and len(lengths):
        # PackedSequence has no rows without frames. They get one frame, which is masked afterwards.
        shown = lengths.clamp(min=1)
        packed = pack_padded_sequence(input, shown.cpu(), batch_first, enforce_sorted=False)
        in_order = [None if s is None else s.index_select(1, packed.sorted_indices) for s in states]
        data, *finals = _composed(cell, packed.data, None, packed.batch_sizes, in_order, tensors, False)
        output, _ = pad_packed_sequence(
            packed._replace(data=data), batch_first, total_length=input.shape[1 if batch_first else 0]
        )
        empty = lengths == 0
        output = output.masked_fill(empty[:, None, None] if batch_first else empty[None, :, None], 0)
        finals = [final.index_select(1, packed.unsorted_indices) for final in finals]
        initial = [torch.zeros_like(f) if s is None else s for f, s in zip(finals, states)]
        return output, *(torch.where(empty[None, :, None], i, f) for i, f in zip(initial, finals))
    rows = batch_sizes[0] if batch_sizes is not None else input.shape[0 if batch_first else 1]
    zeros = input.new_zeros(2 if bidirectional else 1, rows, size)
    states = [zeros if s is None else s for s in states]
    layer, hx = getattr(torch._VF, cell.name), states if len(states) > 1 else states[0]
    if batch_sizes is not None:
        return layer(input, batch_sizes, hx, flat, bias, 1, 0.0, False, bidirectional)
    return layer(input, hx, flat, bias, 1, 0.0, False, bidirectional, batch_first)


def register(cell: Cell) -> None:
    """Register fake kernels and autograd of ``asrkern::<name>`` and ``asrkern::<name>_backward``."""
    count = len(cell.states)

    def fake_results(input, batch_sizes, states, size, directions, batch_first):
        output = input.new_empty((*input.shape[:-1], directions * size))
        given = [state for state in states if state is not None]
        if batch_sizes is None:
            rows = input.shape[0 if batch_first else 1]
        elif given:
            rows = given[0].shape[1]
        else:
            # The number of rows is the value batch_sizes[0].
            rows = torch.library.get_ctx().new_dynamic_size()
        return output, *(input.new_empty((directions, rows, size)) for _ in range(count))

    def fake(*arguments):
        a = _Arguments.of(cell, arguments)
        input, size = a.input, a.weights.weight_hh.shape[1]
        directions = 1 if a.weights_reverse.weight_hh is None else 2
        results = fake_results(input, a.batch_sizes, a.states, size, directions, a.batch_first)
        frames = input.shape[0] if a.batch_sizes is not None else input.shape[0] * input.shape[1]
        reserve = input.new_empty((directions, frames, cell.saved * size) if a.save_reserve else (0,))
        return *results, reserve

    def fake_backward(grad_output, *others):
        grad_states, (*saved, _batch_first) = _split(others, count)
        a = _Saved.of(cell, saved)
        directions, gates = grad_states[0].shape[0], a.weight_hh.shape[0]
        return (
            a.input.new_empty(a.input.shape),
            *(a.input.new_empty(grad.shape) for grad in grad_states),
            a.input.new_empty((directions, *a.weight_ih.shape)),
            a.input.new_empty((directions, *a.weight_hh.shape)),
            a.input.new_empty((directions, gates)),
            a.input.new_empty((directions, gates)),
        )

    def setup_context(ctx, inputs, output):
        a = _Arguments.of(cell, inputs)
        output, *finals, reserve = output
        ctx.mark_non_differentiable(reserve)
        # Zeros for the reserve would be as large as it is.
        ctx.set_materialize_grads(False)
        ctx.batch_first, ctx.save_reserve = a.batch_first, a.save_reserve
        ctx.has_bias = a.weights.bias_ih is not None
        reverse = a.weights_reverse
        weights = (a.weights.weight_ih, a.weights.weight_hh, reverse.weight_ih, reverse.weight_hh)
        ctx.save_for_backward(
            *_Saved(a.input, a.lengths, a.batch_sizes, a.states, *weights, output, reserve).flat(), finals[0]
        )

    def backward(ctx, *grads):
        if not ctx.save_reserve:
            raise RuntimeError(
                f"asrkern::{cell.name}: backward needs save_reserve=True in forward; asrkern.ops.{cell.name} sets it"
            )
        *grads, _grad_reserve = grads
        *values, final = ctx.saved_tensors
        saved = _Saved.of(cell, values)
        like = (saved.output, *[final] * count)
        grads = [torch.zeros_like(t) if grad is None else grad for grad, t in zip(grads, like)]
        with torch.autocast(saved.input.device.type, enabled=False):
            dx, *rest = call(f"{cell.name}_backward", *grads, *saved.flat(), ctx.batch_first)
        dstates, (dw_ih, dw_hh, db_ih, db_hh) = _split(rest, count)

        def of_direction(d: int) -> RecurrentWeights:
            if d == 1 and saved.weight_hh_reverse is None:
                return _NO_WEIGHTS
            return RecurrentWeights(dw_ih[d], dw_hh[d], *((db_ih[d], db_hh[d]) if ctx.has_bias else ()))

        dstates = [None if state is None else grad for state, grad in zip(saved.states, dstates)]
        return dx, None, None, *dstates, *of_direction(0), *of_direction(1), None, None

    def fake_pack(weight_hh, int8_activations=False):
        # The size of a pack depends on the instruction set of the machine that runs it.
        return weight_hh.new_empty((torch.library.get_ctx().new_dynamic_size(),))

    def fake_prepacked(input, _lengths, batch_sizes, *others):
        states, rest = _split(others, count)
        forward, rest = _split(rest, len(_PackedDirection._fields))
        # Last, whether activations are int8, which a tracer leaves out where it is the default.
        reverse, (batch_first, *_) = _split(rest, len(_PackedDirection._fields))
        forward, reverse = _PackedDirection(*forward), _PackedDirection(*reverse)
        size, directions = forward.weight_ih.shape[0] // cell.gates, 1 if reverse.weight_ih is None else 2
        return fake_results(input, batch_sizes, states, size, directions, batch_first)

    register_fake(f"asrkern::{cell.name}")(fake)
    register_fake(f"asrkern::{cell.name}_pack")(fake_pack)
    register_fake(f"asrkern::{cell.name}_prepacked")(fake_prepacked)
    register_fake(f"asrkern::{cell.name}_backward")(fake_backward)
    register_autograd(cell.name, backward, setup_context)
    not_differentiable(f"{cell.name}_pack", f"{cell.name}_prepacked")
    raise_on_double_backward(f"{cell.name}_backward")
