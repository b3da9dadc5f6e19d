"""Recognise a Listen-Attend-Spell checkpoint by its keys and shapes: HW4P2's, or early KoSpeech's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from asrkern.models.las_config import PRESETS
from asrkern.models.weights import check_keys, find_state_dict, raise_misfits

KIND = "Listen-Attend-Spell"

_HW4_KEY = "speller.lstm_cells.0.weight_hh"
_KOSPEECH_KEY = "speller.rnn.weight_hh_l0"
_VGG_CONVOLUTIONS = (0, 3, 7, 10, 13)


def parse_checkpoint(container: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The weights of a file by its own keys.

    Args:
        container: what :func:`asrkern.models.checkpoint.read_checkpoint` returns.

    Raises:
        ValueError: neither lineage's keys are there, a value is no weight, or HW4P2's two copies of the attention
            disagree; the message lists the keys.
    """
    state = find_state_dict(container, KIND, ("model_state_dict", "state_dict"))
    if _HW4_KEY not in state and _KOSPEECH_KEY not in state:
        raise_misfits(KIND, missing=[f"{_HW4_KEY} or {_KOSPEECH_KEY}"], unexpected=list(state))
    check_keys(state, KIND, re.compile(".*", re.DOTALL), ("speller.embedding.weight",))
    different = [
        f"speller.{key}: expected the values of {key}"
        for key, value in state.items()
        if key.startswith("attend.")
        and f"speller.{key}" in state
        and not _same(value, state[f"speller.{key}"])
    ]
    raise_misfits(KIND, malformed=different)
    return state


def options_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of LASConfig that keys and shapes tell, and the lineage's values for those that they do not.

    Raises:
        ValueError: a key that tells is missing, or its shape cannot be.
    """
    return _hw4_options(state) if _HW4_KEY in state else _kospeech_options(state)


def _hw4_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    blocks = range(_count(state, r"listener\.pblstm\.(\d+)\."))
    names = [f"listener.pblstm.{block}.blstm." for block in blocks] or ["listener.pblstm.0.blstm."]
    mobile = "listener.embedding.2.conv.0.weight" in state
    convolutions = ["listener.embedding.0.weight"]
    if mobile:
        modules = range(2, _count(state, r"listener\.embedding\.(\d+)\."), 2)
        convolutions += [f"listener.embedding.{i}.conv.4.weight" for i in modules]
    else:
        pattern = re.compile(r"listener\.embedding\.([3-9]|\d\d+)\.weight")
        found = [key for key in state if pattern.fullmatch(key) and state[key].dim() == 3]
        convolutions += sorted(found, key=lambda key: int(key.split(".")[2]))
    channels = tuple(_extent(state, key, 0) for key in convolutions)
    tied = _same(state["speller.embedding.weight"], state.get("speller.char_prob.weight"))
    return {
        **PRESETS["hw4_mobile" if mobile else "hw4"],
        "num_tokens": _extent(state, "speller.embedding.weight", 0),
        "embedding_size": _extent(state, "speller.embedding.weight", 1),
        "n_features": _extent(state, "listener.embedding.0.weight", 1),
        "conv_channels": channels,
        **_recurrent(state, names),
        "use_pyramidal": _extent(state, f"{names[0]}weight_ih_l0", 1) == 2 * channels[-1],
        "encoder_blocks": _count(state, r"listener\.transformer_encoder\.(\d+)\."),
        "speller_size": _extent(state, _HW4_KEY, 1),
        "speller_layers": _count(state, r"speller\.lstm_cells\.(\d+)\."),
        "tied_output": tied,
        **_attention(state, "attend."),
    }


def _kospeech_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    pyramidal = "listener.rnn.weight_hh_l0" not in state
    names = ["listener.rnn."]
    if pyramidal:
        further = range(2, 2 + _count(state, r"listener\.pyramid_(\d+)\.", first=2))
        names = ["bottom_rnn.", "middle_rnn.rnn.", "top_rnn.rnn.", *(f"pyramid_{i}.rnn." for i in further)]
        names = [f"listener.{name}" for name in names]
    channels = tuple(_extent(state, f"listener.conv.{i}.weight", 0) for i in _VGG_CONVOLUTIONS)
    num_tokens = _extent(state, "speller.embedding.weight", 0)
    bands = _extent(state, f"{names[0]}weight_ih_l0", 1) // channels[-1]
    prefix = "speller.attention.attention."
    attention = _attention(state, prefix)
    if not any(key.startswith(prefix) for key in state):
        attention = {"use_attention": False}
    tied = _same(state["speller.embedding.weight"], state.get("speller.out.weight"))
    return {
        **PRESETS["kospeech"],
        "num_tokens": num_tokens,
        "sos_token": num_tokens - 3,
        "eos_token": num_tokens - 2,
        "pad_token": num_tokens - 1,
        "embedding_size": _extent(state, "speller.embedding.weight", 1),
        # Both pools halve the number of bands. Which of four numbers it was cannot be told.
        "n_features": 4 * bands,
        "conv_channels": channels,
        **_recurrent(state, names),
        "use_pyramidal": pyramidal,
        "speller_size": _extent(state, _KOSPEECH_KEY, 1),
        "speller_layers": _count(state, r"speller\.rnn\.weight_hh_l(\d+)"),
        "tied_output": tied,
        **attention,
    }


def _recurrent(state: Mapping[str, Tensor], names: list[str]) -> dict[str, Any]:
    """Fields about the listener, from the recurrent layers with these prefixes."""
    key = f"{names[0]}weight_hh_l0"
    gates, hidden_size = _extent(state, key, 0), _extent(state, key, 1)
    rnn_type = {3 * hidden_size: "gru", 4 * hidden_size: "lstm"}.get(gates)
    if rnn_type is None:
        expected = "expected [3·H, H] (GRU) or [4·H, H] (LSTM)"
        raise_misfits(KIND, malformed=[f"{key}: {expected}, received {list(state[key].shape)}"])
    return {
        "rnn_type": rnn_type,
        "hidden_size": hidden_size,
        "rnn_layers": tuple(max(1, _count(state, rf"{re.escape(n)}weight_hh_l(\d+)")) for n in names),
        "use_bidirectional": f"{key}_reverse" in state,
    }


def _attention(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    if f"{prefix}KW.weight" in state:
        return {"attention": "multi_head", "attention_size": _extent(state, f"{prefix}KW.weight", 0)}
    if f"{prefix}w.weight" in state:
        kind = "location" if f"{prefix}loc_conv.weight" in state else "additive"
        return {"attention": kind, "attention_size": _extent(state, f"{prefix}w.weight", 1)}
    return {"attention": "dot"}


def _extent(state: Mapping[str, Tensor], key: str, axis: int) -> int:
    if key not in state:
        raise_misfits(KIND, missing=[key])
    shape = state[key].shape
    if axis >= len(shape) or not shape[axis]:
        raise_misfits(KIND, malformed=[f"{key}: expected more axes or values, received shape {list(shape)}"])
    return shape[axis]


def _count(state: Mapping[str, Tensor], pattern: str, first: int = 0) -> int:
    """How many different numbers, from ``first`` on, follow ``pattern`` in the keys."""
    matches = (re.match(pattern, key) for key in state)
    return len({int(match[1]) for match in matches if match and int(match[1]) >= first})


def _same(first: Tensor, second: Tensor | None) -> bool:
    return (
        second is not None
        and first.shape == second.shape
        and torch.allclose(first.double(), second.double(), rtol=0, atol=0, equal_nan=True)
    )
