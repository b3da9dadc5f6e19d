"""asrkern.models.LAS: bad input and bad options give errors that name them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from asrkern.models import LAS, LASConfig
from tests.models.las_forms import make

GOOD = {"features": (2, 28, 40), "lengths": [40, 30], "targets": [[3, 4], [5, 6]], "target_lengths": [2, 1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": (2, 28)}, r"features: expected \[N, 1, 28, T\] or \[N, 28, T\], received \[2, 28\]"),
        ({"features": (2, 27, 40)}, r"features: .*received \[2, 27, 40\]"),
        ({"features": (0, 28, 40), "lengths": [], "targets": torch.zeros(0, 2).long(), "target_lengths": []}, r"received \[0, 28, 40\]"),
        ({"lengths": [40, 41]}, r"lengths: expected 8 to 40 \(T\), received 40 to 41"),
        ({"lengths": [40, 0]}, r"lengths: expected 8 to 40 \(T\), received 0 to 40"),
        ({"lengths": [7, 40]}, r"lengths: expected 8 to 40 \(T\), received 7 to 40"),
        ({"lengths": [40]}, r"lengths: expected shape \[2\], received \[1\]"),
        ({"targets": [[3, 31], [5, 6]]}, r"targets: expected 0 to 30 .*received 3 to 31"),
        ({"targets": [[3, -1], [5, 6]]}, r"targets: expected 0 to 30 .*received -1 to 5"),
        ({"targets": [[3, 0], [5, 6]]}, r"targets: expected tokens without pad, start and end \[0, 1, 2\].*received 0"),
        ({"targets": [[1, 4], [5, 6]]}, r"targets: expected tokens without pad.*received 1"),
        ({"targets": [[3, 4], [2, 6]]}, r"targets: expected tokens without pad.*received 2"),
        ({"targets": [3, 4]}, r"targets: expected shape \[2, L\], received \[2\]"),
        ({"targets": [[3, 4]]}, r"targets: expected shape \[2, L\], received \[1, 2\]"),
        ({"target_lengths": [2, 0]}, r"target_lengths: expected 1 to 2 \(L\), received 0 to 2"),
        ({"target_lengths": [2, 3]}, r"target_lengths: expected 1 to 2 \(L\), received 2 to 3"),
        ({"target_lengths": [2]}, r"target_lengths: expected shape \[2\], received \[1\]"),
        ({"teacher_forcing": 1.1}, r"teacher_forcing: expected 0 to 1, received 1\.1"),
        ({"teacher_forcing": float("nan")}, "teacher_forcing: expected 0 to 1, received nan"),
    ],
)  # fmt: skip
def test_bad_input_is_named(changes: dict, message: str) -> None:
    values = {**GOOD, **changes}
    features = torch.randn(values.pop("features"))
    with pytest.raises(ValueError, match=message):
        make("hw4")(features, **values)


def test_bad_types_and_logits_are_named() -> None:
    model = make("hw4")
    x, lengths = torch.randn(2, 28, 40), torch.tensor([40, 30])
    targets, target_lengths = torch.tensor([[3, 4], [5, 6]]), torch.tensor([2, 1])
    with pytest.raises(TypeError, match=r"targets: expected an integer dtype, received torch\.float32"):
        model(x, lengths, targets.float(), target_lengths)
    with pytest.raises(TypeError, match="features: expected a tensor, received list"):
        model([[0.0]], lengths, targets, target_lengths)
    with pytest.raises(ValueError, match=r"features: expected floating point, received torch\.int64"):
        model.greedy(x.long(), lengths)
    with pytest.raises(ValueError, match=r"logits: expected \[2, 4, 31\], received \[2, 3, 31\]"):
        model.loss(torch.randn(2, 3, 31), targets, target_lengths)
    with pytest.raises(ValueError, match="max_length: expected a positive integer, received 0"):
        model.greedy(x, lengths, max_length=0)
    with pytest.raises(ValueError, match="beam_width: expected a positive integer, received 0"):
        model.beam_search(x, lengths, 0)
    for name in ("length_normalisation", "coverage_penalty"):
        with pytest.raises(ValueError, match=f"{name}: expected a number from 0 on, received -1"):
            model.beam_search(x, lengths, 2, **{name: -1})


@pytest.mark.parametrize(
    "fields",
    [
        {"num_tokens": 0},
        {"pad_token": 31},
        {"sos_token": 0},
        {"eos_token": -1},
        {"n_features": 0},
        {"listener": "resnet"},
        {"conv_channels": ()},
        {"conv_channels": (4, 0)},
        {"rnn_type": "rnn"},
        {"hidden_size": 2.5},
        {"rnn_layers": ()},
        {"rnn_layers": (1, 0)},
        {"use_bidirectional": None},
        {"use_pyramidal": "yes"},
        {"remainder": "ceil"},
        {"encoder_blocks": -1},
        {"encoder_heads": 3},
        {"speller": "rnn"},
        {"speller_size": 0},
        {"attention": "self"},
        {"attention_heads": 3},
        {"dropout": 1.0},
        {"label_smoothing": -0.1},
        {"teacher_forcing_per": "token"},
        {"stats": "all"},
    ],
    ids=str,
)
def test_bad_configurations_are_named(fields: dict) -> None:
    (name,) = fields
    with pytest.raises(ValueError, match=f"{name}: "):
        LASConfig(**fields)


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("hw4", {"attention": "dot"}, "speller_size: expected 256, the listener's size, for dot attention, received 512"),
        ("kospeech", {"use_attention": False, "speller_size": 100}, "speller_size: expected 512, .*for no attention"),
        ("kospeech", {"encoder_blocks": 1}, "encoder_blocks: expected 0 for 'vgg'"),
        ("kospeech", {"conv_channels": (4, 4)}, r"conv_channels: expected 5 for 'vgg', received \(4, 4\)"),
        ("kospeech", {"n_features": 3}, "n_features: expected at least 4"),
        ("kospeech", {"tied_output": True, "embedding_size": 8}, "tied_output: expected False"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_together_are_named(preset: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LAS.preset(preset, **options)


def test_presets_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"name: expected one of \('hw4', 'hw4_mobile', 'kospeech'\), received 'las'"
    ):
        LAS.preset("las")
    with pytest.raises(TypeError, match="width"):
        LAS.preset("hw4", width=3)
    config = LASConfig(conv_channels=[4, 5], rnn_layers=[1])
    assert config.conv_channels == (4, 5)
    assert len({config, replace(config), LASConfig()}) == 2
