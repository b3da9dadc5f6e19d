"""Small models of each form of LAS, with each option that changes what is computed, and input for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from asrkern.models import LAS
from tests.models.las_twins import randomise

SIZES: dict[str, dict[str, Any]] = {
    "hw4": {
        "conv_channels": (8, 12, 12),
        "hidden_size": 8,
        "rnn_layers": (1, 2, 1),
        "speller_size": 16,
        "embedding_size": 8,
        "attention_size": 8,
    },
    "hw4_mobile": {
        "conv_channels": (6, 8, 12),
        "hidden_size": 8,
        "speller_size": 16,
        "embedding_size": 8,
        "attention_size": 8,
    },
    "kospeech": {
        "conv_channels": (4, 4, 6, 6, 6),
        "hidden_size": 8,
        "n_features": 20,
        "num_tokens": 30,
        "sos_token": 27,
        "eos_token": 28,
        "pad_token": 29,
    },
}

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "hw4": ("hw4", {}),
    "hw4, pad": ("hw4", {"remainder": "pad"}),
    "hw4, one direction": ("hw4", {"use_bidirectional": False}),
    "hw4, no pyramid": ("hw4", {"use_pyramidal": False}),
    "hw4, no attention": ("hw4", {"use_attention": False}),
    "hw4, reversed": ("hw4", {"reverse_input": True}),
    "hw4, dot": ("hw4", {"attention": "dot"}),
    "hw4, additive": ("hw4", {"attention": "additive"}),
    "hw4, location": ("hw4", {"attention": "location"}),
    "hw4, two heads, gru": ("hw4", {"attention_heads": 2, "rnn_type": "gru", "tied_output": False}),
    "mobile": ("hw4_mobile", {}),
    "mobile, pyramid": ("hw4_mobile", {"use_pyramidal": True, "remainder": "pad", "encoder_blocks": 1}),
    "kospeech": ("kospeech", {}),
    "kospeech, drop": ("kospeech", {"remainder": "drop"}),
    "kospeech, one direction": ("kospeech", {"use_bidirectional": False}),
    "kospeech, no pyramid": ("kospeech", {"use_pyramidal": False}),
    "kospeech, no attention": ("kospeech", {"use_attention": False}),
    "kospeech, reversed": ("kospeech", {"reverse_input": True}),
    "kospeech, additive": ("kospeech", {"attention": "additive"}),
    "kospeech, location": ("kospeech", {"attention": "location", "attention_smoothing": False}),
    "kospeech, four heads": ("kospeech", {"attention": "multi_head", "attention_heads": 4}),
    "kospeech, locked, tied, lstm": (
        "kospeech",
        {"locked_dropout": True, "tied_output": True, "rnn_type": "lstm"},
    ),
}
forms = pytest.mark.parametrize("form", FORMS)


def make(form: str, **options: Any) -> LAS:
    """A small model in eval mode with random batch norms."""
    preset, fields = FORMS[form]
    return randomise(LAS.preset(preset, **{**SIZES[preset], **fields, **options}))


def batch(lengths: list[int], features: int, frames: int | None = None) -> tuple[Tensor, Tensor]:
    """[N, F, T] with NaN beyond each length, and the lengths."""
    x = torch.full((len(lengths), features, frames or max(lengths)), float("nan"))
    for row, length in zip(x, lengths):
        row[:, :length] = torch.randn(features, length)
    return x, torch.tensor(lengths)
