"""Searches over the fused step: the same as over a speller's layers, for every form, and only where they are the same."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from asrkern.models import LAS
from asrkern.models.las_search import Ranking, beam_search
from asrkern.models.speller_steps import FusedSteps, Steps, steps_of
from asrkern.nn import quantize
from tests.compare import assert_close, assert_same_bits
from tests.models.las_twins import randomise

FORMS = {
    "hw4": ("hw4", {}),
    "hw4 heads": ("hw4", {"attention_heads": 3}),
    "hw4 dot": ("hw4", {"attention": "dot", "hidden_size": 6, "speller_size": 12}),
    "hw4 additive": ("hw4", {"attention": "additive"}),
    "hw4 location": ("hw4", {"attention": "location", "attention_smoothing": False}),
    "hw4 mean": ("hw4", {"use_attention": False}),
    "kospeech": ("kospeech", {}),
    "kospeech heads": ("kospeech", {"attention": "multi_head", "attention_heads": 4}),
    "kospeech additive": ("kospeech", {"attention": "additive"}),
    "kospeech location": ("kospeech", {"attention": "location"}),
    "kospeech mean": ("kospeech", {"use_attention": False}),
}
forms = pytest.mark.parametrize("form", FORMS)


def make(form: str) -> LAS:
    preset, options = FORMS[form]
    sizes = {
        "hw4": {"conv_channels": (6,), "rnn_layers": (1,), "encoder_blocks": 0, "embedding_size": 9, "attention_size": 6},
        "kospeech": {"conv_channels": (3, 3, 4, 4, 4), "rnn_layers": (1, 1), "speller_layers": 2},
    }[preset]  # fmt: skip
    tokens = {"num_tokens": 13, "pad_token": 0, "sos_token": 1, "eos_token": 2}
    model = LAS.preset(
        preset, **{"hidden_size": 6, "n_features": 8, "speller_size": 12, **sizes, **tokens, **options}
    )
    randomise(model)
    return model.eval()


@torch.no_grad()
def listened(model: LAS, rows: int = 4):
    lengths = torch.tensor([40, 23, 31, 36][:rows])
    return model.listen(torch.randn(rows, 8, 40), lengths)


@forms
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_steps_are_those_of_the_layers(form: str, weights: str) -> None:
    model = make(form)
    model = model if weights == "fp32" else quantize(model, weights)
    memory = listened(model)
    with torch.no_grad():
        steps, layers = steps_of(model.speller, memory, 2), Steps(model.speller, memory, 2)
        assert type(steps) is FusedSteps
        one, two = steps.start(), layers.start()
        for _ in range(4):
            token = torch.randint(3, 13, (8,))
            logits, attended, one = steps.step(token, one)
            expected, expected_attended, two = layers.step(token, two)
            assert_close(logits, expected, 2e-5)
            assert_close(attended, expected_attended, 2e-5)
            rows = torch.randint(2, (4, 2)).add(2 * torch.arange(4)[:, None]).flatten()
            one, two = one.select(rows), two.select(rows)
        tokens, counts, log_probs = steps_of(model.speller, memory).greedy(1, 2, 15)
        expected = Steps(model.speller, memory).greedy(1, 2, 15)
    assert torch.equal(counts, expected[1])
    for row, count in enumerate(counts.tolist()):
        assert torch.equal(tokens[row, :count], expected[0][row, :count])
    assert_close(log_probs, expected[2], 1e-5)


@forms
def test_an_utterance_is_spelled_alike_in_any_batch(form: str) -> None:
    model = make(form)
    memory = listened(model)
    together = steps_of(model.speller, memory).greedy(1, 2, 12)
    for row in range(4):
        alone = steps_of(model.speller, memory.select(torch.tensor([row]))).greedy(1, 2, 12)
        for of_all, of_one in zip(together, alone, strict=True):
            assert_same_bits(of_all[row], of_one[0])


@pytest.mark.parametrize("form", ["hw4", "kospeech", "kospeech location"])
def test_a_beam_is_that_of_the_layers(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(form)
    memory = listened(model)
    found = beam_search(model.speller, memory, 1, 2, 9, 5, Ranking(0.6, 0.2))
    monkeypatch.setattr("asrkern.models.las_search.steps_of", Steps)
    expected = beam_search(model.speller, memory, 1, 2, 9, 5, Ranking(0.6, 0.2))
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.ended == b.ended
            assert a.log_prob == pytest.approx(b.log_prob, rel=1e-5)
            assert a.score == pytest.approx(b.score, rel=1e-4)


def test_beams_are_those_of_the_layers() -> None:
    model = make("hw4")
    memory = listened(model)
    memory.keys[2, 0] = torch.nan
    with torch.no_grad():
        found = steps_of(model.speller, memory, 4).beam(1, 2, 9)
        expected = Steps(model.speller, memory, 4).beam(1, 2, 9)
    assert torch.equal(found.counts, expected.counts)
    assert torch.equal(found.log_probs.isnan(), expected.log_probs.isnan())
    assert found.log_probs.isnan().any(1).tolist() == [False, False, True, False]
    rows = torch.tensor([0, 1, 3])
    assert torch.equal(found.tokens[rows], expected.tokens[rows])
    assert_close(found.coverage[rows], expected.coverage[rows], 2e-5)


def test_edits_are_seen() -> None:
    model = make("hw4")
    memory = listened(model)
    before = steps_of(model.speller, memory).greedy(1, 2, 6)
    model.speller.lstm_cells[1].weight_hh.data[:, 2] = 0.7
    model.speller.embedding.weight.detach().numpy()[5] += 2
    after = steps_of(model.speller, memory).greedy(1, 2, 6)
    assert not torch.equal(after[2], before[2])
    assert_close(after[2], Steps(model.speller, memory).greedy(1, 2, 6)[2], 1e-5)


@pytest.mark.parametrize(
    "form, edit",
    [
        ("hw4 location", lambda speller: setattr(speller.attend, "smoothing", True)),
        ("hw4 heads", lambda speller: setattr(speller.attend, "num_heads", 2)),
        (
            "kospeech location",
            lambda speller: setattr(speller.attention["attention"], "smoothing", False),
        ),
    ],
)
def test_settings_that_are_no_weights_are_seen(form: str, edit: Callable[[Any], None]) -> None:
    model = make(form)
    memory = listened(model)
    with torch.no_grad():
        before = steps_of(model.speller, memory).greedy(1, 2, 6)
        edit(model.speller)
        after = steps_of(model.speller, memory).greedy(1, 2, 6)
        assert not torch.equal(after[2], before[2])
        assert_close(after[2], Steps(model.speller, memory).greedy(1, 2, 6)[2], 1e-5)


OTHER_LAYERS = {
    "an attention's bias": lambda speller: setattr(speller.attend, "W", nn.Linear(12, 6)),
    "a score's bias": lambda speller: setattr(speller.attend, "w", nn.Linear(6, 1)),
    "a location's bias": lambda speller: setattr(speller.attend, "U", nn.Linear(speller.attend.U.in_features, 6)),
    "dilation": lambda speller: setattr(speller.attend.loc_conv, "dilation", (2,)),
    "a short embedding": lambda speller: setattr(speller.embedding, "max_norm", 0.5),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER_LAYERS)
def test_layers_that_compute_something_else_go_through_themselves(what: str) -> None:
    model = make("hw4 location")
    memory = listened(model)
    assert type(steps_of(model.speller, memory)) is FusedSteps
    OTHER_LAYERS[what](model.speller)
    assert type(steps_of(model.speller, memory)) is Steps


PLAIN = {
    "training": lambda speller: speller.train(),
    "a hook": lambda speller: speller.linear1.register_forward_hook(lambda *_: None),
    "weight_norm": lambda speller: nn.utils.parametrizations.weight_norm(speller.linear1),
    "another layer": lambda speller: setattr(speller, "linear1", nn.Sequential(speller.linear1)),
    "another class": lambda speller: setattr(speller, "__class__", type("Mine", (type(speller),), {})),
    "float64": lambda speller: speller.double(),
    "some of it quantised": lambda speller: setattr(speller, "linear1", quantize(speller.linear1)),
    "dropout at inference": lambda speller: speller.dropout.train(),
    "a forward of its own": lambda speller: setattr(speller.linear1, "forward", speller.linear1.forward),
    "another embedding": lambda speller: setattr(
        speller.embedding, "__class__", type("Mine", (nn.Embedding,), {})
    ),
    "another attention": lambda speller: setattr(
        speller.attend, "__class__", type("Mine", (type(speller.attend),), {})
    ),
}


@pytest.mark.parametrize("what", PLAIN)
def test_what_the_kernels_do_not_have_goes_through_the_layers(what: str) -> None:
    model = make("hw4")
    PLAIN[what](model.speller)
    dtype = next(model.speller.parameters()).dtype
    memory = model.speller.remember(torch.randn(2, 9, 12, dtype=dtype), torch.tensor([9, 5]))
    assert type(steps_of(model.speller, memory)) is Steps


@pytest.mark.parametrize("form", ["hw4", "kospeech"])
def test_models_pickled_before_there_were_fused_steps(form: str) -> None:
    model = make(form)
    features, lengths = torch.randn(2, 8, 40), [40, 23]
    expected = model.greedy(features, lengths, 5)
    del model.speller.packed
    old = pickle.loads(pickle.dumps(model))
    assert old.greedy(features, lengths, 5) == expected
    old.beam_search(features, lengths, 2, max_length=3)
    assert type(steps_of(old.speller, old.listen(features, lengths))) is FusedSteps
