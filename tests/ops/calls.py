"""The arguments of each operation by name, as torch.ops.asrkern takes them."""

from __future__ import annotations

import pytest
import torch

INF = float("inf")


def g(*shape):
    return torch.randn(shape)


def op(name):
    return getattr(torch.ops.asrkern, name)


def recurrent(cell, *, prepacked=False, directions=2, steps=4, rows=3, features=5, size=6):
    """The arguments of a recurrent operation by name, all of them there."""
    gates, states = (3, ("h0",)) if cell == "gru" else (4, ("h0", "c0"))

    def one(end, there=True):
        parameters = {
            "weight_ih": g(gates * size, features),
            "scale_ih": g(gates * size),
            "packed_hh" if prepacked else "weight_hh": g(gates * size, size),
            "scale_hh": g(gates * size),
            "bias_ih": g(gates * size),
            "bias_hh": g(gates * size),
        }
        if prepacked:
            parameters["packed_hh"] = op(f"{cell}_pack")(parameters["packed_hh"])
        parameters = {
            k + end: v if there else None for k, v in parameters.items() if prepacked or "scale" not in k
        }
        return parameters

    return {
        "input": g(steps, rows, features),
        "lengths": torch.randint(0, steps + 1, (rows,)),
        "batch_sizes": None,
        **{name: g(directions, rows, size) for name in states},
        **one(""),
        **one("_reverse", directions == 2),
        "batch_first": False,
        **({} if prepacked else {"save_reserve": True}),
    }


def backward(cell, **options):
    a = recurrent(cell, **options)
    output, *finals, reserve = op(cell)(*a.values())
    del a["save_reserve"]
    batch_first = a.pop("batch_first")
    a = {k: v for k, v in a.items() if "bias" not in k}
    grads = {f"grad_{k}": torch.randn_like(v) for k, v in zip(("output", "h_n", "c_n"), (output, *finals))}
    return grads | a | {"output": output, "reserve": reserve, "batch_first": batch_first}


def batch_norm(layout="NCFT", training=False):
    return {
        "input": g(*(dict(N=4, C=3, F=2, T=7, R=5)[d] for d in layout)), "weight": g(3), "bias": g(3), "running_mean": g(3),
        "running_var": g(3).abs() + 0.5, "lengths": None if layout == "RC" else torch.tensor([7, 0, 3, 5]),
        "layout": layout, "training": training, "count_padding": False, "eps": 1e-5, "min": 0.0, "max": 20.0,
    }  # fmt: skip


def batch_norm_backward():
    a = batch_norm()
    a["mean"], a["var"] = a.pop("running_mean"), a.pop("running_var")
    order = ("input", "weight", "bias", "mean", "var", "lengths")
    rest = {k: v for k, v in a.items() if k not in order}
    return {"grad_output": torch.randn_like(a["input"])} | {k: a[k] for k in order} | rest


def conv():
    return {
        "input": g(4, 2, 9, 7), "weight": g(6, 2, 5, 3), "bias": g(6), "scale": g(6), "shift": g(6),
        "lengths": torch.tensor([7, 0, 3, 5]), "output_lengths": None, "stride": [2, 1], "padding": [2, 1],
        "min": 0.0, "max": 20.0, "pool": [2, 3],
    }  # fmt: skip


def conv_backward():
    a = {
        k: v
        for k, v in conv().items()
        if k in ("input", "weight", "lengths", "output_lengths", "stride", "padding")
    }
    return {"grad_output": g(4, 6, 5, 7)} | a


def beam_search():
    return {
        "log_probs": g(2, 5, 4).log_softmax(-1), "lengths": torch.tensor([5, 3]),
        "token_kinds": torch.zeros(4, dtype=torch.uint8), "language_model": [], "lm_order": 0, "lm_bos": 0, "lm_eos": 0,
        "lm_tokens": None, "lexicon": [], "hotwords": [], "texts": torch.zeros(5, 2, dtype=torch.int64),
        "alpha": 0.0, "beta": 0.0, "unk_score": 0.0, "unknown_look_ahead": 0.0, "begin_reach": 0.0,
        "blank": 0, "beam_width": 4, "nbest": 2, "top_tokens": 4, "token_min_logp": -INF, "beam_prune_logp": -INF,
        "blank_penalty": 0.0, "log_add": True, "history": 512, "check_normalized": True, "num_threads": 1,
    }  # fmt: skip


def model(**changes):
    tensors = {"unigrams": -g(5, 2).abs(), "ngrams": torch.zeros(4, 2, dtype=torch.int64), **changes}
    return {"language_model": list(tensors.values()), "lm_order": 2}


def speller(search=None, *, rows=4, memories=2, frames=7, size=6, tokens=5, values=3, attended=4):
    """A speller of two LSTM cells with additive, location-aware attention, all of its tensors there."""

    def dense(gates, out_features, in_features):
        weight = op("speller_pack")(g(gates * out_features, in_features), gates)
        return weight, g(gates * out_features), g(gates * out_features)

    cells = []
    for features in (2 + values, size):
        (ih, scale_ih, bias), (hh, scale_hh, _) = dense(4, size, features), dense(4, size, size)
        cells += [ih, hh, scale_ih, scale_hh, bias, g(0)]
    return {
        "tokens": torch.randint(tokens, (rows,)), "states": g(4, rows, size), "context": g(rows, values),
        **({} if search else {"previous": g(rows, frames).softmax(1)}),
        "keys": g(memories, frames, attended), "values": g(memories, frames, values),
        "lengths": torch.randint(1, frames + 1, (memories,)),
        "gru": False, "embedding": g(tokens, 2), "cells": cells, "scores": "additive", "heads": 1, "scale": 1.0,
        "smoothing": False, "attention": [*dense(1, attended, size), g(attended), g(3, attended), g(attended)],
        "features_begin": 0, "outputs": [*dense(1, 4, size + values), *dense(1, tokens, 4)], "widths": [4, tokens],
        "feeds_context": True, **({"eos": 1, "max_length": 5} if search else {}), **({"beam_width": 3} if search == "beam" else {}),
    }  # fmt: skip


def cell(kind, rows=3, features=5, size=6):
    gates, states = (3, ("h",)) if kind == "gru" else (4, ("h", "c"))
    return {
        "input": g(rows, features), **{name: g(rows, size) for name in states}, "weight_ih": g(gates * size, features),
        "scale_ih": g(gates * size), "weight_hh": g(gates * size, size), "scale_hh": g(gates * size),
        "bias_ih": g(gates * size), "bias_hh": g(gates * size), "save_reserve": True,
    }  # fmt: skip


def packed_cell(kind):
    a, gates = cell(kind), 3 if kind == "gru" else 4
    return {
        key.replace("weight", "packed"): op("speller_pack")(value, gates)
        if key.startswith("weight")
        else value
        for key, value in a.items()
    }


def cell_backward(kind):
    a = cell(kind)
    *after, reserve = op(f"{kind}_cell")(*a.values())
    grads = {f"grad_{name}": torch.randn_like(t) for name, t in zip(("h", "c"), after)}
    state = "h" if kind == "gru" else "c"
    return grads | {state: a[state], "reserve": reserve}


QUANTIZED = {"input": g(3, 5), "weight": torch.ones(4, 5, dtype=torch.int8), "scale": g(4), "bias": g(4)}
CALLS = {
    "gru": lambda: recurrent("gru"),
    "gru_backward": lambda: backward("gru"),
    "gru_prepacked": lambda: recurrent("gru", prepacked=True),
    "lstm": lambda: recurrent("lstm"),
    "lstm_backward": lambda: backward("lstm"),
    "lstm_prepacked": lambda: recurrent("lstm", prepacked=True),
    "gru_cell": lambda: cell("gru"),
    "gru_cell_backward": lambda: cell_backward("gru"),
    "gru_cell_prepacked": lambda: packed_cell("gru"),
    "lstm_cell": lambda: cell("lstm"),
    "lstm_cell_prepacked": lambda: packed_cell("lstm"),
    "lstm_cell_backward": lambda: cell_backward("lstm"),
    "linear": lambda: {"input": g(3, 5), "weight": g(4, 5), "bias": g(4)},
    "linear_quantized": lambda: dict(QUANTIZED),
    "linear_heads": lambda: {
        "input": g(3, 10),
        "weight": g(8, 5),
        "scale": g(8),
        "bias": g(8),
        "heads": 2,
        "transposed": False,
    },
    "attention": lambda: {
        "query": g(5, 12),
        "key": g(6, 6),
        "value": g(6, 10),
        "query_lengths": torch.tensor([3, 0, 2]),
        "key_lengths": torch.tensor([2, 1, 3]),
        "bias": g(3, 4, 3, 3),
        "heads": 4,
        "key_heads": 2,
        "causal": False,
        "scale": 0.5,
    },
    "batch_norm_act": batch_norm,
    "batch_norm_act_backward": batch_norm_backward,
    "masked_conv2d": conv,
    "masked_conv2d_backward_input": conv_backward,
    "masked_conv2d_backward_weight": conv_backward,
    "ctc_beam_search": beam_search,
    "speller_step": speller,
    "speller_beam": lambda: speller("beam"),
    "speller_greedy": lambda: speller("greedy"),
}
CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])
