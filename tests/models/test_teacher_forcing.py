"""asrkern.models.teacher_forcing: what the speller of HW4P2 computes step by step, with the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from asrkern.models import LAS, teacher_forcing
from asrkern.models.speller import Speller
from tests.models.las_forms import batch, make

FORMS = {
    "multi_head": {"attention_heads": 1},
    "four heads, two cells": {"attention_heads": 4, "attention_size": 24, "speller_layers": 2},
    "dot, one cell": {"attention": "dot", "speller_size": None, "speller_layers": 1},
    "plain dropout": {"locked_dropout": False},
    "untied": {"tied_output": False},
}


def step(model: LAS, x: Tensor, lengths: Tensor, tokens: Tensor, forced, with_weights: bool):
    """Logits, attention weights, and gradients of all parameters and of the features."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(5)
    logits, weights = model.speller(tokens, model.listen(x, lengths), forced)
    seed = torch.Generator().manual_seed(6)
    loss = (logits * torch.randn(logits.shape, generator=seed, dtype=torch.float64)).sum()
    if with_weights:
        loss = loss + (weights * torch.randn(weights.shape, generator=seed, dtype=torch.float64)).sum()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"logits": logits.detach(), "weights": weights.detach(), "x": x.grad, **gradients}


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        # The gradient of a bias of keys is 0, up to rounding.
        scale = float(expected[name].abs().max()) + 1e-2
        torch.testing.assert_close(
            value.double(),
            expected[name].double(),
            rtol=0,
            atol=tolerance * scale,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def stepwise(model: LAS, monkeypatch: pytest.MonkeyPatch, *arguments) -> dict[str, Tensor]:
    """The same with plain PyTorch, step by step."""
    plain = copy.deepcopy(model)
    for index, cell in enumerate(plain.speller.lstm_cells):
        stock = nn.LSTMCell(cell.input_size, cell.hidden_size).to(cell.weight_ih.dtype)
        stock.load_state_dict(cell.state_dict())
        plain.speller.lstm_cells[index] = stock
    with monkeypatch.context() as patch:
        patch.setattr(teacher_forcing, "can_spell", lambda *_: False)
        return step(plain, *arguments)


@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_equals_steps_with_plain_torch(form, with_weights, monkeypatch) -> None:
    model = make("hw4", dropout=0.3, **FORMS[form]).double().train()
    x, lengths = batch([57, 40, 63], model.config.n_features)
    tokens = torch.randint(3, 20, (3, 7))
    # A padding's embedding has no gradient.
    tokens[1, 4:] = model.config.pad_token
    called = []
    spell = teacher_forcing.spell
    monkeypatch.setattr(teacher_forcing, "spell", lambda *a: called.append(a) or spell(*a))
    ours = step(model, x.double(), lengths, tokens, None, with_weights)
    assert len(called) == 1
    assert_same(ours, stepwise(model, monkeypatch, x.double(), lengths, tokens, None, with_weights), 1e-10)


@pytest.mark.parametrize("frames_at_once", [1, 9, 1024])
def test_gradients_in_float32_in_parts_of_any_length(frames_at_once, monkeypatch) -> None:
    model = make("hw4", dropout=0.3)
    model.speller.train()
    x, lengths = batch([57, 40, 63], model.config.n_features)
    tokens = torch.randint(3, 20, (3, 11))
    monkeypatch.setattr(teacher_forcing, "_FRAMES_AT_ONCE", frames_at_once)
    ours = step(model, x, lengths, tokens, None, True)
    # Masks are drawn in float32 and in float64 alike.
    exact = stepwise(model.double(), monkeypatch, x.double(), lengths, tokens, None, True)
    for name in [name for name in exact if name.startswith("listener.")]:
        # Those that are 0 but for rounding are not small in float32. x's gradient has come through all of them.
        del ours[name], exact[name]
    assert_same(ours, exact, 1e-4)


@pytest.mark.parametrize("locked", [True, False])
def test_own_choices_are_fed_back(locked, monkeypatch) -> None:
    model = make("hw4", dropout=0.4 if locked else 0.0, locked_dropout=locked).double().train()
    x, lengths = batch([57, 40], model.config.n_features)
    tokens, forced = (
        torch.randint(3, 20, (2, 9)),
        [True, False, True, False, False, True, False, False, False],
    )
    called = []
    spell = teacher_forcing.spell
    monkeypatch.setattr(teacher_forcing, "spell", lambda *a: called.append(a) or spell(*a))
    ours = step(model, x.double(), lengths, tokens, forced, False)
    assert len(called) == 1
    assert_same(ours, stepwise(model, monkeypatch, x.double(), lengths, tokens, forced, False), 1e-10)
    # Given all that was chosen, the same.
    chosen = ours["logits"].argmax(-1)
    given = [tokens[:, t] if now else chosen[:, t - 1] for t, now in enumerate(forced)]
    again = step(model, x.double(), lengths, torch.stack(given, 1), None, False)
    assert_same(again, ours, 1e-12)


def _hooked(model: LAS) -> None:
    model.speller.lstm_cells[0].register_forward_hook(lambda *_: None)


def _normed(model: LAS) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.speller.lstm_cells[0], "weight_hh")


def _sparse(model: LAS) -> None:
    model.speller.embedding.scale_grad_by_freq = True


@pytest.mark.parametrize("change", [_hooked, _normed, _sparse])
def test_what_it_does_not_know_is_done_step_by_step(change, monkeypatch) -> None:
    model = make("hw4", tied_output=False).train()
    change(model)
    monkeypatch.setattr(teacher_forcing, "spell", None)
    x, lengths = batch([57, 40], model.config.n_features)
    logits, _ = model.speller(torch.randint(3, 20, (2, 5)), model.listen(x, lengths))
    logits.sum().backward()
    assert all(p.grad is not None for p in model.speller.lstm_cells.parameters())


@pytest.mark.parametrize("form", ["hw4, additive", "hw4, location"])
def test_other_scores_are_done_step_by_step(form, monkeypatch) -> None:
    model = make("hw4", attention=form.split(", ")[1]).train()
    monkeypatch.setattr(teacher_forcing, "spell", None)
    x, lengths = batch([57, 40], model.config.n_features)
    assert model.speller(torch.randint(3, 20, (2, 5)), model.listen(x, lengths))[0].requires_grad


def test_plain_dropout_is_drawn_anew_with_own_choices(monkeypatch) -> None:
    """A choice is made of the logits that are returned, so their draw cannot come after."""
    model = make("hw4", locked_dropout=False, dropout=0.3).train()
    monkeypatch.setattr(teacher_forcing, "spell", None)
    x, lengths = batch([57, 40], model.config.n_features)
    assert model.speller(torch.randint(3, 20, (2, 5)), model.listen(x, lengths), [True, False] * 2 + [True])


def test_backward_twice_and_second_derivatives() -> None:
    model = make("hw4", dropout=0.0).train()
    x, lengths = batch([57, 40], model.config.n_features)
    memory = model.listen(x, lengths)
    logits, _ = model.speller(torch.randint(3, 20, (2, 5)), memory)
    weight = model.speller.lstm_cells[0].weight_hh
    first, second = (torch.autograd.grad(logits.sum(), weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad(logits.sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_without_gradients_nothing_is_kept(monkeypatch) -> None:
    model = make("hw4").train()
    monkeypatch.setattr(teacher_forcing, "spell", None)
    x, lengths = batch([57], model.config.n_features)
    with torch.no_grad():
        assert isinstance(model.speller, Speller)
        assert model.speller(torch.randint(3, 20, (1, 5)), model.listen(x, lengths))[0].shape[1] == 5
