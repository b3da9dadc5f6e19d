"""Calls of operations with valid arguments, made from a generator of random numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrkern import reference
from asrkern.ops import Dense, SpellerCell, SpellerWeights
from asrkern.reference.int8 import round_rows
from tests.compare import assert_close
from tests.fuzz._spoil import INF, tensor


class Call(NamedTuple):
    """valid: nothing speaks against the arguments; equals(results): asserts that they are right."""

    op: str
    arguments: dict[str, object]
    valid: bool = True
    equals: Callable | None = None


def raw(op: str) -> Callable:
    return getattr(torch.ops.asrkern, op)


def maybe(rng: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor | None:
    return tensor(rng, shape, dtype) if rng.random() < 0.5 else None


def integers(rng: np.random.Generator, least: int, most: int, count: int) -> Tensor:
    return torch.from_numpy(rng.integers(least, most + 1, count))


def maybe_lengths(rng: np.random.Generator, rows: int, longest: int) -> Tensor | None:
    return integers(rng, 0, longest, rows) if rng.random() < 0.6 else None


def make_recurrent(rng: np.random.Generator, cell: str) -> tuple[dict, dict, tuple, tuple, dict, bool]:
    """(batch, states, weights, reverse, options, valid), as the operation's arguments are named."""
    gates, names = (3, ("h0",)) if cell == "gru" else (4, ("h0", "c0"))
    dtype = torch.float64 if rng.random() < 0.2 else torch.float32
    steps, rows, features, size = (int(rng.integers(least, 6)) for least in (1, 0, 0, 1))
    if rng.random() < 0.05:
        steps = 0
    directions, batch_first, lengths, batch_sizes = int(rng.integers(1, 3)), False, None, None
    if rng.random() < 0.3 and rows and steps:
        batch_sizes = -(-integers(rng, 1, rows, steps)).sort().values
        rows, frames = int(batch_sizes[0]), int(batch_sizes.sum())
        x = tensor(rng, (frames, features), dtype)
    else:
        batch_first, lengths = bool(rng.random() < 0.5), maybe_lengths(rng, rows, steps)
        x = tensor(rng, (rows, steps, features) if batch_first else (steps, rows, features), dtype)
    states = {name: maybe(rng, directions, rows, size, dtype=dtype) for name in names}
    bias = rng.random() < 0.7
    shapes = [(gates * size, features), (gates * size, size), *[(gates * size,) if bias else None] * 2]
    weights, reverse = (
        tuple(None if shape is None or not there else tensor(rng, shape, dtype) for shape in shapes)
        for there in (True, directions == 2)
    )
    batch = {"input": x, "lengths": lengths, "batch_sizes": batch_sizes}
    return batch, states, weights, reverse, {"batch_first": batch_first}, steps > 0


WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def named(weights: tuple, reverse: tuple, names: tuple[str, ...] = WEIGHTS) -> dict:
    return dict(zip(names, weights)) | dict(zip((f"{name}_reverse" for name in names), reverse))


def make_layer(cell: str):
    def make(rng):
        batch, states, weights, reverse, options, valid = make_recurrent(rng, cell)
        arguments = (
            batch | states | named(weights, reverse) | options | {"save_reserve": bool(rng.random() < 0.5)}
        )

        def equals(results):
            expected = getattr(reference, cell)(
                batch["input"].double(), [doubled(w) for w in weights], [doubled(w) for w in reverse] if reverse[0] is not None else None,
                *map(doubled, states.values()), lengths=batch["lengths"], batch_sizes=batch["batch_sizes"], **options,
            )  # fmt: skip
            for result, wanted in zip(results, expected):
                assert_close(result, wanted, 1e-4, cell)

        cheap = batch["input"].numel() > 0 and rng.random() < 0.2
        return Call(cell, arguments, valid, equals if cheap else None)

    return make


def make_backward(cell: str):
    def make(rng):
        batch, states, weights, reverse, options, valid = make_recurrent(rng, cell)
        directions, size = 1 if reverse[0] is None else 2, weights[1].shape[1]
        x = batch["input"]
        rows = (
            x.shape[0 if options["batch_first"] else 1]
            if batch["batch_sizes"] is None
            else int(batch["batch_sizes"][0])
        )
        frames, saved = int(np.prod(x.shape[:-1])), {"gru": 4, "lstm": 5}[cell]
        output = tensor(rng, (*x.shape[:-1], directions * size), x.dtype)
        grads = {
            f"grad_{name}": tensor(rng, (directions, rows, size), x.dtype)
            for name in ("h_n", "c_n")[: len(states)]
        }
        reserve = tensor(rng, (directions, frames, saved * size), x.dtype)
        both = {name: value for name, value in named(weights, reverse).items() if "bias" not in name}
        arguments = {"grad_output": tensor(rng, output.shape, x.dtype)} | grads | batch | states | both
        return Call(f"{cell}_backward", arguments | {"output": output, "reserve": reserve} | options, valid)

    return make


def quantized(rng: np.random.Generator, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight * 50).clamp(-127, 127).to(dtype) if dtype == torch.int8 else weight.to(dtype)


PACKED = ("weight_ih", "scale_ih", "packed_hh", "scale_hh", "bias_ih", "bias_hh")


def make_prepacked(cell: str):
    def make(rng):
        batch, states, weights, reverse, options, valid = make_recurrent(rng, cell)
        dtype = (torch.float32, torch.bfloat16, torch.int8)[rng.integers(3)]
        pack = raw(f"{cell}_pack")
        dots = dtype == torch.int8 and bool(rng.integers(2))

        def packed(w):
            if w[0] is None:
                return (None,) * 6
            ih, hh = (quantized(rng, each.float(), dtype) for each in w[:2])
            scales = [maybe(rng, len(ih)) for _ in range(2)]
            return (
                ih,
                scales[0],
                pack(hh, dots),
                scales[1],
                *(None if b is None else b.float() for b in w[2:]),
            )

        batch["input"] = batch["input"].float()
        states = {name: None if state is None else state.float() for name, state in states.items()}
        arguments = batch | states | named(packed(weights), packed(reverse), PACKED) | options
        arguments["int8_activations"] = dots
        return Call(f"{cell}_prepacked", arguments, valid)

    return make


def make_pack(cell: str):
    def make(rng):
        size, gates = int(rng.integers(1, 20)), {"gru": 3, "lstm": 4}[cell]
        dtype = (torch.float32, torch.bfloat16, torch.int8)[rng.integers(3)]
        weight = quantized(rng, tensor(rng, (gates * size, size)), dtype)
        dots = dtype == torch.int8 and bool(rng.integers(2))
        return Call(f"{cell}_pack", {"weight_hh": weight, "int8_activations": dots})

    return make


CELL_STATES = {"gru": ("h",), "lstm": ("h", "c")}


def make_cell(cell: str, packed: bool = False):
    def make(rng):
        gates, (rows, features, size) = {"gru": 3, "lstm": 4}[cell], (int(n) for n in rng.integers(1, 9, 3))
        rows = 0 if rng.random() < 0.1 else rows
        kinds = (torch.float32, torch.bfloat16, torch.int8) + (torch.float64,) * (not packed)
        kind = kinds[rng.integers(len(kinds))]
        dtype = torch.float64 if kind == torch.float64 else torch.float32
        x, *states = (tensor(rng, (rows, n), dtype) for n in (features, *[size] * len(CELL_STATES[cell])))
        exact = [tensor(rng, (gates * size, n), dtype) for n in (features, size)]
        weights = [quantized(rng, weight, kind) for weight in exact]
        scales = [maybe(rng, gates * size, dtype=dtype) for _ in range(2)]
        there = rng.random() < 0.7
        biases = [tensor(rng, (gates * size,), dtype) if there else None for _ in range(2)]
        names = ("packed_ih", "scale_ih", "packed_hh", "scale_hh") if packed else ("weight_ih", "scale_ih", "weight_hh", "scale_hh")  # fmt: skip
        given = [raw("speller_pack")(weight, gates) for weight in weights] if packed else weights
        arguments = {"input": x, **dict(zip(CELL_STATES[cell], states))}
        arguments |= dict(zip(names, (given[0], scales[0], given[1], scales[1])))
        arguments |= {"bias_ih": biases[0], "bias_hh": biases[1]}
        # Over packed weights only where they were not rounded.
        arguments["save_reserve"] = bool(rng.random() < 0.5) and not (packed and kind != torch.float32)

        def equals(results):
            w = [
                weight.double() * (1 if scale is None else scale.double()[:, None])
                for weight, scale in zip(weights, scales)
            ]
            b = [torch.zeros(gates * size).double() if bias is None else bias.double() for bias in biases]
            before = states[0].double() if cell == "gru" else [state.double() for state in states]
            expected = {"gru": torch.gru_cell, "lstm": torch.lstm_cell}[cell](x.double(), before, *w, *b)
            expected = (expected,) if cell == "gru" else expected
            for result, wanted in zip(results, expected):
                # Weights of up to 127 make large sums.
                assert_close(result, wanted, 1e-3 if kind == torch.int8 else 1e-5, f"{cell}_cell")

        return Call(f"{cell}_cell_prepacked" if packed else f"{cell}_cell", arguments, True, equals)

    return make


def make_cell_backward(cell: str):
    def make(rng):
        dtype = torch.float64 if rng.random() < 0.2 else torch.float32
        rows, size = int(rng.integers(0, 6)), int(rng.integers(1, 9))
        grads = {f"grad_{name}": tensor(rng, (rows, size), dtype) for name in CELL_STATES[cell]}
        before = {CELL_STATES[cell][-1]: tensor(rng, (rows, size), dtype)}
        saved = {"gru": 4, "lstm": 5}[cell] * size
        return Call(f"{cell}_cell_backward", grads | before | {"reserve": tensor(rng, (rows, saved), dtype)})

    return make


def make_linear(rng: np.random.Generator) -> Call:
    dtype = torch.float64 if rng.random() < 0.2 else torch.float32
    *batch, features, outputs = (int(size) for size in rng.integers(0, 20, rng.integers(2, 5)))
    x, weight, bias = (
        tensor(rng, (*batch, features), dtype),
        tensor(rng, (outputs, features), dtype),
        maybe(rng, outputs, dtype=dtype),
    )
    expected = reference.linear(x.double(), weight.double(), doubled(bias))
    return Call(
        "linear",
        {"input": x, "weight": weight, "bias": bias},
        True,
        lambda r: assert_close(r[0], expected, 1e-5),
    )


def make_linear_quantized(rng: np.random.Generator) -> Call:
    *batch, features, outputs = (int(size) for size in rng.integers(0, 20, rng.integers(2, 5)))
    dtype = torch.int8 if rng.random() < 0.5 else torch.bfloat16
    x, weight = tensor(rng, (*batch, features)), quantized(rng, tensor(rng, (outputs, features)), dtype)
    scale, bias = maybe(rng, outputs), maybe(rng, outputs)
    dots = dtype == torch.int8 and bool(rng.integers(2))
    q, of_row = round_rows(x) if dots and features else (x, torch.ones(*batch, 1))
    product = q.double() * of_row.double() @ weight.double().t()
    expected = product * (1 if scale is None else scale.double()) + (0 if bias is None else bias.double())
    arguments = {"input": x, "weight": weight, "scale": scale, "bias": bias, "int8_activations": dots}
    return Call("linear_quantized", arguments, True, lambda r: assert_close(r[0], expected, 1e-5))


def make_batch_norm(rng: np.random.Generator) -> dict:
    layout = ("RC", "NTC", "TNC", "NCT", "NCFT")[rng.integers(5)]
    dtype = torch.float64 if rng.random() < 0.2 else torch.float32
    sizes = {letter: int(rng.integers(0 if rng.random() < 0.1 else 1, 6)) for letter in "NCFTR"}
    x, channels = tensor(rng, tuple(sizes[letter] for letter in layout), dtype), sizes["C"]
    return {
        "input": x,
        "weight": maybe(rng, channels, dtype=dtype),
        "bias": maybe(rng, channels, dtype=dtype),
        "mean": tensor(rng, (channels,), dtype),
        "var": tensor(rng, (channels,), dtype).abs() + 0.5,
        "lengths": None if layout == "RC" else maybe_lengths(rng, sizes["N"], sizes["T"]),
        "layout": layout,
        "training": bool(rng.random() < 0.5),
        "count_padding": bool(rng.random() < 0.5),
        "eps": 1e-5,
        "min": 0.0 if rng.random() < 0.5 else -INF,
        "max": 20.0 if rng.random() < 0.5 else INF,
    }


def make_batch_norm_act(rng: np.random.Generator) -> Call:
    a = make_batch_norm(rng)
    arguments = {
        {"mean": "running_mean", "var": "running_var"}.get(name, name): value for name, value in a.items()
    }
    counted = a["input"].numel() if a["lengths"] is None or a["count_padding"] else int(a["lengths"].sum())

    def equals(results):
        expected = reference.batch_norm_act(
            a["input"].double(), doubled(a["weight"]), doubled(a["bias"]), a["mean"].double(), a["var"].double(), a["lengths"],
            layout=a["layout"], training=a["training"], stats="padded" if a["count_padding"] else "valid",
            activation=(a["min"], a["max"]),
        )  # fmt: skip
        assert_close(results[0], expected[0], 1e-3 if a["training"] else 1e-5, "batch_norm_act")

    several = a["input"].numel() > 0 and (
        not a["training"] or counted > 16 * a["input"].shape[a["layout"].index("C")]
    )
    return Call(
        "batch_norm_act", arguments, a["input"].numel() > 0 or not a["training"], equals if several else None
    )


def make_batch_norm_act_backward(rng: np.random.Generator) -> Call:
    a = make_batch_norm(rng)
    return Call(
        "batch_norm_act_backward", {"grad_output": tensor(rng, a["input"].shape, a["input"].dtype)} | a
    )


def make_masked_conv2d(rng: np.random.Generator) -> Call:
    dtype = torch.float64 if rng.random() < 0.2 else torch.float32
    rows, channels, outputs = int(rng.integers(0, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 10))
    kernel = [int(rng.integers(1, 5)), int(rng.integers(1, 13))]
    stride, padding = [int(s) for s in rng.integers(1, 4, 2)], [int(p) for p in rng.integers(0, 5, 2)]
    sizes = [int(rng.integers(1, 25)) for _ in range(2)]
    if rng.random() < 0.3:
        # By Winograd's transforms, or a matrix product.
        channels, outputs, stride = int(rng.integers(16, 20)), int(rng.integers(16, 40)), [1, 1]
        kernel, padding = ([kernel[0], 3], padding) if rng.random() < 0.6 else ([1, 1], [0, 0])
        sizes[1] = int(rng.integers(1, 300))
    groups = channels if rng.random() < 0.2 else 1
    outputs = outputs if groups == 1 else channels
    lengths = maybe_lengths(rng, rows, sizes[1])
    x = tensor(rng, (rows, channels, *sizes), dtype)
    weight = tensor(rng, (outputs, channels // groups, *kernel), dtype)
    small = {name: maybe(rng, outputs, dtype=dtype) for name in ("bias", "scale", "shift")}
    bounds = (0.0, 20.0) if rng.random() < 0.5 else (-INF, INF)
    geometry = {"stride": stride, "padding": padding}
    if rng.random() < 0.05:
        # One window, and more of it than can be counted.
        stride[rng.integers(2)] = 2**62
    pool = [int(w) for w in rng.choice([1, 1, 1, 2, 3, 5], 2)]
    extents = [(size + 2 * p - k) // s + 1 for size, p, k, s in zip(sizes, padding, kernel, stride)]
    valid = all(
        size + 2 * p >= k and extent >= window
        for size, p, k, extent, window in zip(sizes, padding, kernel, extents, pool)
    )

    def equals(results):
        expected = reference.masked_conv2d(
            x.double(),
            weight.double(),
            *map(doubled, small.values()),
            lengths=lengths,
            activation=bounds,
            pool=pool,
            groups=groups,
            **geometry,
        )
        assert_close(results[0], expected, 1e-4, "masked_conv2d")

    arguments = {
        "input": x,
        "weight": weight,
        **small,
        "lengths": lengths,
        "output_lengths": None,
        **geometry,
    }
    cheap = valid and rows > 0 and max(stride) < 2**62
    return Call(
        "masked_conv2d",
        arguments | {"min": bounds[0], "max": bounds[1], "pool": pool, "groups": groups},
        valid,
        equals if cheap else None,
    )


def make_masked_conv2d_backward(which: str):
    def make(rng: np.random.Generator) -> Call:
        forward = make_masked_conv2d(rng)
        geometry = ("lengths", "output_lengths", "stride", "padding")
        a = {name: forward.arguments[name] for name in ("input", "weight", *geometry)}
        x, weight, stride, padding = (a[name] for name in ("input", "weight", "stride", "padding"))
        room = [size + 2 * p - k for size, p, k in zip(x.shape[2:], padding, weight.shape[2:])]
        extents = [max(left // s + 1, 0) for left, s in zip(room, stride)]
        grad = tensor(rng, (x.shape[0], weight.shape[0], *extents), x.dtype)
        # Filters of single channels are torch's.
        valid = min(room) >= 0 and forward.arguments["groups"] == 1
        valid &= which == "weight" or (stride[1] == 1 and padding[1] < weight.shape[3])

        def equals(results):
            tensors = [t.double().requires_grad_() for t in (x, weight)]
            output = reference.masked_conv2d(*tensors, **{name: a[name] for name in geometry})
            expected = torch.autograd.grad(output, tensors, grad.double())[which == "weight"]
            assert_close(results[0], expected, 1e-4, f"masked_conv2d_backward_{which}")

        return Call(
            f"masked_conv2d_backward_{which}",
            {"grad_output": grad} | a,
            valid,
            equals if valid and forward.equals is not None else None,
        )

    return make


def make_masked_conv2d_batch_norm_act(rng: np.random.Generator) -> Call:
    a = make_masked_conv2d(rng).arguments
    outputs, dtype = a["weight"].shape[0], a["input"].dtype
    arguments = {name: a[name] for name in ("input", "weight", "bias")}
    arguments |= {name: maybe(rng, outputs, dtype=dtype) for name in ("norm_weight", "norm_bias")}
    arguments |= {name: a[name] for name in ("lengths", "output_lengths", "stride", "padding")}
    arguments |= {"count_padding": bool(rng.random() < 0.5), "eps": 1e-5, "min": a["min"], "max": a["max"]}
    # On a CPU there is no kernel of that name; asrkern.ops takes two others.
    return Call("masked_conv2d_batch_norm_act", arguments, False)


def trie(rng: np.random.Generator, vocabulary: int, nodes: int) -> dict[str, Tensor]:
    """A random graph of nodes that tokens lead from one to another, node 1 without any, as decoder's trie is kept."""
    tokens = [sorted(rng.choice(vocabulary, rng.integers(0, min(4, vocabulary) + 1), replace=False)) if node != 1 else [] for node in range(nodes)]  # fmt: skip
    masks = [sum(1 << (int(token) % 64) for token in row) if vocabulary <= 64 else 0 for row in tokens]
    edges = list(itertools.chain(*tokens))
    return {
        "edge_begin": torch.tensor([0, *np.cumsum([len(row) for row in tokens])], dtype=torch.int32),
        "edge_token": torch.tensor(np.array(edges, dtype=np.int32)),
        "edge_target": integers(rng, 0, nodes - 1, len(edges)).to(torch.int32),
        "edge_mask": torch.tensor(np.array(masks, dtype=np.uint64).astype(np.int64)),
    }


def make_ctc_beam_search(rng: np.random.Generator) -> Call:
    rows, frames, vocabulary = int(rng.integers(0, 3)), int(rng.integers(0, 6)), int(rng.integers(1, 9))
    beam_width = int(rng.integers(1, 9))
    words, nodes = int(rng.integers(1, 6)), int(rng.integers(2, 6))
    language_model = lexicon = hotwords = ()
    words_of_lexicon = 0
    if rng.random() < 0.6:
        unigrams, groups = -tensor(rng, (words, 2)).abs(), int(rng.integers(1, 4))
        slots = integers(rng, -(2**62), 2**62, 8 * groups)
        quantized = rng.random() < 0.5
        language_model = (
            (unigrams, slots, -tensor(rng, (2, 256)).abs())
            if quantized
            else (unigrams, torch.zeros(4 * groups, 2, dtype=torch.int64))
        )
    if rng.random() < 0.5:
        t, count = trie(rng, vocabulary, nodes), int(rng.integers(0, 6))
        begins = torch.cat(
            [
                torch.zeros(1, dtype=torch.int64),
                integers(rng, 0, count, nodes - 1).sort().values,
                torch.tensor([count]),
            ]
        )
        of_lm = integers(rng, 0, words - 1, max(words, 1)).to(torch.int32)
        words_of_lexicon = len(of_lm)
        lexicon = (
            *(t["edge_begin"], t["edge_token"], t["edge_target"], t["edge_mask"], begins.to(torch.int32)),
            *(
                integers(rng, 0, words - 1, count).to(torch.int32),
                of_lm,
                *(tensor(rng, (nodes,)).abs() for _ in range(2)),
            ),
        )
    if rng.random() < 0.5:
        values = [tensor(rng, (nodes,)).abs() for _ in range(3)]
        for value in values:
            value[1] = 0
        hotwords = (*trie(rng, vocabulary, nodes).values(), *values)
    characters = language_model and rng.random() < 0.3
    log_probs = tensor(rng, (rows, frames, vocabulary)).log_softmax(-1)
    return Call("ctc_beam_search", {
        "log_probs": log_probs,
        "lengths": maybe_lengths(rng, rows, frames),
        "token_kinds": integers(rng, 0, 2, vocabulary).to(torch.uint8),
        "language_model": list(language_model),
        "lm_order": int(rng.integers(1, 7)),
        "lm_bos": int(rng.integers(words)),
        "lm_eos": int(rng.integers(words)),
        "lm_tokens": integers(rng, 0, words - 1, vocabulary).to(torch.int32) if characters else None,
        "lexicon": list(lexicon),
        "hotwords": list(hotwords),
        "texts": integers(rng, 0, 2**62, (1 + vocabulary + words_of_lexicon, 2)) if rng.random() < 0.5 else None,
        "alpha": float(rng.random()),
        "beta": float(rng.standard_normal()),
        "unk_score": float(rng.standard_normal()) if not lexicon or rng.random() < 0.5 else None,
        "unknown_look_ahead": float(rng.random()),
        "begin_reach": float(rng.random()),
        "blank": int(rng.integers(vocabulary)),
        "beam_width": beam_width,
        "nbest": int(rng.integers(1, beam_width + 1)),
        "top_tokens": int(rng.integers(1, 12)),
        "token_min_logp": -INF if rng.random() < 0.5 else -3.0,
        "beam_prune_logp": -INF if rng.random() < 0.5 else -5.0,
        "blank_penalty": 0.0,
        "log_add": bool(rng.random() < 0.5),
        "history": int(rng.integers(1, 9)),
        "check_normalized": bool(rng.random() < 0.5),
        "num_threads": int(rng.integers(0, 3)),
    })  # fmt: skip


def doubled(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.double()


def make_speller_pack(rng: np.random.Generator) -> Call:
    gates, units, features = (int(rng.integers(1, 6)) for _ in range(3))
    return Call("speller_pack", {"weight": tensor(rng, (gates * units, features)), "gates": gates})


def make_speller_step(rng: np.random.Generator) -> Call:
    rows, memories, frames, size, values, tokens, count = (int(n) for n in rng.integers(1, 5, 7))
    rows, gru, scores = (
        rows * memories,
        bool(rng.random() < 0.5),
        str(rng.choice(["mean", "dot", "additive"])),
    )
    feeds, width, bare = (
        bool(rng.random() < 0.5),
        int(rng.integers(1, 20)),
        scores == "mean" or rng.random() < 0.3,
    )
    heads = int(rng.integers(1, 4)) if scores == "dot" else 1
    values, gates, nothing = values * heads, 3 if gru else 4, torch.empty(0)
    size = size * heads if bare else size
    attended = size if bare else int(rng.integers(1, 5)) * heads

    def dense(gates: int, units: int, features: int) -> tuple[Dense, list[Tensor]]:
        weight, bias = tensor(rng, (gates * units, features)), maybe(rng, gates * units)
        packed = raw("speller_pack")(weight, gates)
        return Dense(weight, None, bias), [packed, nothing, nothing if bias is None else bias]

    cells, packed_cells = [], []
    for index in range(count):
        features = size if index else 3 + (values if feeds else 0)
        (ih, (packed_ih, _, bias)), (hh, (packed_hh, *_)) = (
            dense(gates, size, features),
            dense(gates, size, size),
        )
        cells.append(SpellerCell(ih, hh._replace(bias=None)))
        packed_cells += [packed_ih, packed_hh, nothing, nothing, bias, nothing]
    query, packed_query = (None, [nothing] * 3) if bare else dense(1, attended, size)
    energy = tensor(rng, (attended,)) if scores == "additive" else None
    (first, packed_first), (last, packed_last) = dense(1, width, size + values), dense(1, tokens, width)
    weights = SpellerWeights(
        "gru" if gru else "lstm", tensor(rng, (tokens, 3)), tuple(cells), (first, last), "both", feeds, scores, query,
        heads, 0.5, energy, smoothing=bool(rng.random() < 0.5),
    )  # fmt: skip
    given = {
        "tokens": integers(rng, 0, tokens - 1, rows),
        "states": tensor(rng, (count * (1 if gru else 2), rows, size)),
        "context": tensor(rng, (rows, values)),
        "previous": maybe(rng, rows, frames),
        "keys": tensor(rng, (memories, frames, attended)),
        "values": tensor(rng, (memories, frames, values)),
        "lengths": integers(rng, 0, frames, memories),
    }

    def equals(results: tuple[Tensor, ...]) -> None:
        for actual, expected in zip(results, reference.speller_step(weights, **given), strict=True):
            assert_close(actual, expected, 1e-4)

    arguments = {
        **given, "gru": gru, "embedding": weights.embedding, "cells": packed_cells, "scores": scores, "heads": heads,
        "scale": 0.5, "smoothing": weights.smoothing,
        "attention": [*packed_query, nothing if energy is None else energy, nothing, nothing], "features_begin": 0,
        "outputs": [*packed_first, *packed_last], "widths": [width, tokens], "feeds_context": feeds,
    }  # fmt: skip
    return Call("speller_step", arguments, True, equals)


def make_linear_heads(rng: np.random.Generator) -> Call:
    heads, width, features, rows = (int(rng.integers(least, 5)) for least in (1, 0, 0, 0))
    transposed = bool(rng.random() < 0.5)
    arguments = {
        "input": tensor(rng, (rows, heads * (width if transposed else features))),
        "weight": tensor(rng, (heads * width, features)),
        "scale": None if transposed else maybe(rng, heads * width),
        "bias": None if transposed else maybe(rng, heads * width),
        "heads": heads,
        "transposed": transposed,
    }

    def equals(results) -> None:
        wide = [a.double() if isinstance(a, Tensor) else a for a in arguments.values()]
        expected = reference.linear_heads(*wide[:4], heads=heads, transposed=transposed)
        assert_close(results[0], expected, 1e-5)

    return Call("linear_heads", arguments, True, equals)


def make_attention(rng: np.random.Generator) -> Call:
    rows, key_heads, sharing, width, value_width = (int(rng.integers(least, 5)) for least in (0, 1, 1, 0, 0))
    heads = key_heads * sharing
    queries, keys = (integers(rng, 0, 5, rows) for _ in range(2))
    longest = [int(n.max()) if rows else 0 for n in (queries, keys)]
    bias = None
    if rng.random() < 0.5:
        shared = rng.random(3) < 0.5
        bias = tensor(
            rng,
            (
                1 if shared[0] else rows,
                1 if shared[1] else heads,
                1 if shared[2] else longest[0] + 1,
                longest[1] + 1,
            ),
        )
    arguments = {
        "query": tensor(rng, (int(queries.sum()), heads * width)),
        "key": tensor(rng, (int(keys.sum()), key_heads * width)),
        "value": tensor(rng, (int(keys.sum()), key_heads * value_width)),
        "query_lengths": queries,
        "key_lengths": keys,
        "bias": bias,
        "heads": heads,
        "key_heads": key_heads,
        "causal": bool(rng.random() < 0.5),
        "scale": 0.5,
    }

    def equals(results) -> None:
        if rows == 0:
            return
        wide = [
            a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments.values()
        ]
        options = {name: arguments[name] for name in ("heads", "key_heads", "causal", "scale")}
        assert_close(results[0], reference.attention(*wide[:6], **options), 1e-5)

    return Call("attention", arguments, True, equals)


MAKERS = {
    "gru": make_layer("gru"),
    "gru_backward": make_backward("gru"),
    "gru_pack": make_pack("gru"),
    "gru_prepacked": make_prepacked("gru"),
    "lstm": make_layer("lstm"),
    "lstm_backward": make_backward("lstm"),
    "lstm_pack": make_pack("lstm"),
    "lstm_prepacked": make_prepacked("lstm"),
    "gru_cell": make_cell("gru"),
    "gru_cell_backward": make_cell_backward("gru"),
    "gru_cell_prepacked": make_cell("gru", packed=True),
    "lstm_cell": make_cell("lstm"),
    "lstm_cell_backward": make_cell_backward("lstm"),
    "lstm_cell_prepacked": make_cell("lstm", packed=True),
    "linear": make_linear,
    "linear_quantized": make_linear_quantized,
    "linear_heads": make_linear_heads,
    "attention": make_attention,
    "batch_norm_act": make_batch_norm_act,
    "batch_norm_act_backward": make_batch_norm_act_backward,
    "masked_conv2d": make_masked_conv2d,
    "masked_conv2d_backward_input": make_masked_conv2d_backward("input"),
    "masked_conv2d_backward_weight": make_masked_conv2d_backward("weight"),
    "masked_conv2d_batch_norm_act": make_masked_conv2d_batch_norm_act,
    "ctc_beam_search": make_ctc_beam_search,
    "speller_pack": make_speller_pack,
    "speller_step": make_speller_step,
}
