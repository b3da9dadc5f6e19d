"""Operations, called as torch.ops.asrkern.* and through asrkern.ops: valid arguments of which some are spoilt.

An input is one call. What nobody spoilt has to be computed, and where a reference is cheap, to equal it; anything else
is refused, or computed with results of the shape and dtype that these arguments give.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asrkern import ops
from tests.fuzz._op_calls import MAKERS, PACKED, WEIGHTS, raw
from tests.fuzz._spoil import spoil

#: torch's own checks of schemas and keys raise RuntimeError, NotImplementedError and TypeError; asrkern's are ValueError.
REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError)

DIFFERENTIABLE = ("gru", "lstm", "linear", "batch_norm_act", "masked_conv2d")


def one(rng: np.random.Generator, folder: Path, prepared: object) -> None:
    torch.set_num_threads(2 if rng.random() < 0.1 else 1)
    call = MAKERS[rng.choice(list(MAKERS))](rng)
    arguments, spoilt = dict(call.arguments), 0
    if rng.random() < 0.85:
        spoilt = int(rng.integers(1, 4))
        for name in rng.choice(list(arguments), spoilt):
            arguments[name] = spoil(rng, arguments[name])
    through_python = call.op in THROUGH_PYTHON and rng.random() < 0.4
    run = THROUGH_PYTHON[call.op] if through_python else lambda **a: raw(call.op)(*a.values())
    differentiated = not spoilt and call.op in DIFFERENTIABLE and rng.random() < 0.3
    if differentiated:
        for value in arguments.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                value.requires_grad_()
    try:
        results = run(**arguments)
        if differentiated and not (call.op in ("gru", "lstm") and not through_python):
            output = results if isinstance(results, Tensor) else results[0]
            output.sum().backward()
    except REFUSALS as error:
        assert spoilt or not call.valid, f"{call.op}: refused what is valid: {error}"
        # How torch reports what nobody has checked before, but for casts to float32 in asrkern.ops without the memory.
        cast = through_python and "DefaultCPUAllocator" in str(error)
        if not cast and not isinstance(error, NotImplementedError):
            assert ".h" not in str(error) and ".cpp" not in str(error), str(error)
        raise
    results = (results,) if isinstance(results, Tensor) else tuple(results)
    assert all(isinstance(result, Tensor) for result in results)
    if not spoilt and call.equals is not None:
        call.equals(results)
    check_shapes(call.op, arguments, results)


def run_recurrent(cell: str, names: tuple[str, ...], suffix: str = ""):
    def run(**a):
        weights, reverse = ([a[name + end] for name in names] for end in ("", "_reverse"))
        states = [a[name] for name in ("h0", "c0") if name in a]
        if all(value is None for value in reverse):
            reverse = None
        kind = (
            getattr(ops, {"gru": "PackedGRUWeights", "lstm": "PackedLSTMWeights"}[cell]) if suffix else tuple
        )
        weights, reverse = (w if w is None else kind(*w) if suffix else kind(w) for w in (weights, reverse))
        return getattr(ops, cell + suffix)(
            a["input"], weights, reverse, *states,
            lengths=a["lengths"], batch_sizes=a["batch_sizes"], batch_first=a["batch_first"],
            **activations(a["int8_activations"] if suffix else False),
        )  # fmt: skip

    return run


def activations(int8_activations: object) -> dict[str, object]:
    """What Python calls it; what is no bool is passed on, to be refused."""
    names = {False: {}, True: {"activations": "int8"}}
    return names.get(int8_activations, {"activations": int8_activations})


def run_pack(cell: str):
    pack = getattr(ops, f"pack_{cell}_weight")
    return lambda weight_hh, int8_activations: pack(weight_hh, **activations(int8_activations))


def run_linear_quantized(*, int8_activations, **a):
    return ops.linear_quantized(**a, **activations(int8_activations))


def run_batch_norm_act(*, count_padding, min, max, **a):
    return ops.batch_norm_act(**a, stats="padded" if count_padding else "valid", activation=(min, max))


def run_masked_conv2d(*, min, max, **a):
    return ops.masked_conv2d(**a, activation=(min, max))


def run_masked_conv2d_batch_norm_act(*, count_padding, min, max, **a):
    return ops.masked_conv2d_batch_norm_act(
        **a, stats="padded" if count_padding else "valid", activation=(min, max)
    )


CONTEXT = ops.CTCContext._fields


def run_ctc_beam_search(*, log_probs, lengths, **a):
    context = ops.CTCContext(**{name: value for name, value in a.items() if name in CONTEXT})
    return ops.ctc_beam_search(
        log_probs, lengths, context=context, **{n: v for n, v in a.items() if n not in CONTEXT}
    )


THROUGH_PYTHON = {
    "gru": run_recurrent("gru", WEIGHTS),
    "lstm": run_recurrent("lstm", WEIGHTS),
    "gru_prepacked": run_recurrent("gru", PACKED, "_prepacked"),
    "lstm_prepacked": run_recurrent("lstm", PACKED, "_prepacked"),
    "gru_pack": run_pack("gru"),
    "lstm_pack": run_pack("lstm"),
    "linear": ops.linear,
    "linear_quantized": run_linear_quantized,
    "batch_norm_act": run_batch_norm_act,
    "masked_conv2d": run_masked_conv2d,
    "masked_conv2d_batch_norm_act": run_masked_conv2d_batch_norm_act,
    "ctc_beam_search": run_ctc_beam_search,
}


def check_shapes(op: str, a: dict, results: tuple[Tensor, ...]) -> None:
    """Results have the shape, and without lower precisions the dtype, that accepted arguments give."""
    first = results[0]
    if op in ("gru", "lstm", "gru_prepacked", "lstm_prepacked"):
        gates, states = (3, 1) if op.startswith("gru") else (4, 2)
        size, directions = a["weight_ih"].shape[0] // gates, 1 if a["weight_ih_reverse"] is None else 2
        assert first.shape == (*a["input"].shape[:-1], directions * size)
        packed = a["batch_sizes"] is not None
        rows = int(a["batch_sizes"][0]) if packed else a["input"].shape[0 if a["batch_first"] else 1]
        assert all(state.shape == (directions, rows, size) for state in results[1 : 1 + states])
    elif op in ("gru_backward", "lstm_backward"):
        assert first.shape == a["input"].shape
        both = 1 if a["weight_ih_reverse"] is None else 2
        assert results[-4].shape == (both, *a["weight_ih"].shape) and results[-3].shape == (
            both,
            *a["weight_hh"].shape,
        )
    elif op in ("gru_cell", "lstm_cell", "gru_cell_prepacked", "lstm_cell_prepacked"):
        assert all(state.shape == a["h"].shape for state in results[: 1 if op.startswith("gru") else 2])
    elif op in ("gru_cell_backward", "lstm_cell_backward"):
        assert results[-1].shape == a["grad_h"].shape
    elif op in ("masked_conv2d_backward_input", "masked_conv2d_backward_weight"):
        assert first.shape == a["input" if op.endswith("input") else "weight"].shape
    elif op in ("linear", "linear_quantized"):
        assert first.shape == (*a["input"].shape[:-1], a["weight"].shape[0])
    elif op in ("batch_norm_act", "batch_norm_act_backward"):
        channels = (a["input"].shape[a["layout"].index("C")],)
        assert first.shape == a["input"].shape and results[1].shape == results[2].shape == channels
    elif op in ("masked_conv2d", "masked_conv2d_batch_norm_act"):
        sizes = zip(a["input"].shape[2:], a["padding"], a["weight"].shape[2:], a["stride"])
        extents = [(size + 2 * padding - kernel) // stride + 1 for size, padding, kernel, stride in sizes]
        extents = [extent // window for extent, window in zip(extents, a.get("pool", (1, 1)))]
        assert first.shape == (a["input"].shape[0], a["weight"].shape[0], *extents)
    elif op == "linear_heads":
        features = a["weight"].shape[1] * a["heads"] if a["transposed"] else a["weight"].shape[0]
        assert first.shape == (a["input"].shape[0], features)
    elif op == "attention":
        assert first.shape == (a["query"].shape[0], a["value"].shape[1] // a["key_heads"] * a["heads"])
    elif op == "ctc_beam_search":
        rows, frames, _ = a["log_probs"].shape
        assert first.shape == (rows, a["nbest"], frames)
        assert ((first >= -1) & (first < a["log_probs"].shape[2])).all()
    elif op == "speller_step":
        rows, frames = a["tokens"].shape[0], a["keys"].shape[1]
        assert first.shape == (rows, a["embedding"].shape[0]) and results[1].shape == (rows, frames)
        assert results[2].shape == a["states"].shape and results[3].shape == (rows, a["values"].shape[2])
