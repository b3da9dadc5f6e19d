"""asrkern.models.LAS in training: the loss, teacher forcing, dropout, and padding that counts for nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from asrkern.models import LAS
from tests.models.las_forms import batch, forms, make


def loss_by_definition(model: LAS, logits: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    config, total, count = model.config, 0.0, 0
    for row, length in enumerate(target_lengths.tolist()):
        labels = (
            [config.sos_token] * config.predicts_sos + targets[row, :length].tolist() + [config.eos_token]
        )
        for step, label in enumerate(labels):
            log_probs = logits[row, step].log_softmax(0)
            smooth = config.label_smoothing
            total = total - (1 - smooth) * log_probs[label] - smooth * log_probs.mean()
            count += 1
    return total / count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("form", ["hw4", "kospeech"])
def test_loss_is_cross_entropy_over_valid_steps(form: str, smoothing: float) -> None:
    model = make(form, label_smoothing=smoothing)
    x, lengths = batch([57, 40, 63], model.config.n_features)
    targets, target_lengths = torch.randint(3, 20, (3, 6)), torch.tensor([6, 1, 4])
    # Whatever stands beyond a target's length is not read.
    targets[1, 1:], targets[2, 4:] = -5, 10**6
    output = model(x, lengths, targets, target_lengths.int())
    assert output.lengths.tolist() == [n + 1 + model.config.predicts_sos for n in (6, 1, 4)]
    loss = model.loss(output.logits, targets, target_lengths)
    torch.testing.assert_close(
        loss, loss_by_definition(model, output.logits, targets, target_lengths), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("form", ["hw4", "kospeech", "mobile"])
def test_training_ignores_the_padding(form: str) -> None:
    """Gradients and running statistics do not change with more padding, of frames or of targets."""

    def step(frames: int, width: int) -> dict[str, Tensor]:
        # In float32 the gradient of a bias in front of a batch norm is all rounding.
        model = make(form, dropout=0.0).double()
        model.load_state_dict(state)
        model.train()
        padded = torch.full((2, features, frames), float("nan"), dtype=torch.float64)
        for target, utterance in zip(padded, utterances):
            target[:, : utterance.shape[1]] = utterance
        tokens = torch.nn.functional.pad(targets, (0, width))
        output = model(padded, lengths, tokens, target_lengths)
        model.loss(output.logits, tokens, target_lengths).backward()
        gradients = {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
        return {**gradients, **dict(model.named_buffers())}

    state, features = make(form).state_dict(), make(form).config.n_features
    lengths, utterances = torch.tensor([57, 40]), [torch.randn(features, n) for n in (57, 40)]
    targets, target_lengths = torch.randint(3, 20, (2, 5)), torch.tensor([5, 3])
    short, long = step(57, 0), step(80, 4)
    for name, value in short.items():
        scale = float(value.abs().max()) + 1e-2
        torch.testing.assert_close(long[name], value, rtol=0, atol=1e-10 * scale, msg=name)


def test_dropout_is_locked_over_time_where_it_is_asked_for() -> None:
    """With equal frames in and one mask per utterance, equal frames come out."""
    model = make("hw4", dropout=0.5).train()
    dropout = model.listener.pblstm[0].dropout
    y = dropout(torch.ones(4, 9, 64))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert (y[0] != y[1]).any()
    plain = make("hw4", dropout=0.5, locked_dropout=False).train().listener.pblstm[0].dropout
    y = plain(torch.ones(4, 9, 64))
    assert (y != y[:, :1]).any()


@pytest.mark.parametrize("form", ["hw4", "kospeech, locked, tied, lstm"])
def test_locked_dropout_of_the_speller_is_the_same_at_all_steps(form: str) -> None:
    """Spelled step by step with the same draw, training gives what it gives all at once."""
    model = make(form, dropout=0.5)
    model.speller.train()
    if form != "hw4":
        model.speller.rnn.dropout = 0.0
    x, lengths = batch([57, 40], model.config.n_features)
    memory = model.listen(x, lengths)
    tokens = torch.randint(3, 20, (2, 5))
    torch.manual_seed(3)
    together, _ = model.speller(tokens, memory)
    torch.manual_seed(3)
    stepwise, _ = model.speller(tokens, memory, [True] * 5)
    torch.testing.assert_close(stepwise, together, rtol=0, atol=1e-5)
    torch.manual_seed(4)
    assert (model.speller(tokens, memory)[0] - together).abs().max() > 1e-4


@torch.no_grad()
@forms
def test_without_teacher_forcing_the_models_own_choices_are_fed_back(form: str) -> None:
    model = make(form)
    x, lengths = batch([57, 40], model.config.n_features)
    targets, target_lengths = torch.randint(3, 20, (2, 6)), torch.tensor([6, 6])
    free = model(x, lengths, targets, target_lengths, teacher_forcing=0.0)
    memory = model.listen(x, lengths)
    chosen = free.logits.argmax(-1)
    start = torch.full((2, 1), model.config.sos_token)
    expected, _ = model.speller(torch.cat((start, chosen[:, :-1]), 1), memory)
    torch.testing.assert_close(free.logits, expected, rtol=0, atol=1e-5)
    # And no target is read.
    other = torch.randint(3, 20, (2, 6))
    assert torch.equal(model(x, lengths, other, target_lengths, 0.0).logits, free.logits)


@torch.no_grad()
@pytest.mark.parametrize("form", ["hw4", "kospeech"])
def test_teacher_forcing_is_drawn_per_step_or_per_batch(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(form)
    x, lengths = batch([40], model.config.n_features)
    targets, target_lengths = torch.randint(3, 20, (1, 30)), torch.tensor([30])
    seen = []
    forward = model.speller.forward
    monkeypatch.setattr(model.speller, "forward", lambda t, m, f=None: seen.append(f) or forward(t, m, f))
    for _ in range(40):
        model(x, lengths, targets, target_lengths, teacher_forcing=0.7)
    steps = 31 + model.config.predicts_sos
    draws = [[True] * steps if forced is None else forced for forced in seen]
    share = sum(sum(d[1:]) for d in draws) / (40 * (steps - 1))
    if model.config.teacher_forcing_per == "step":
        assert abs(share - 0.7) < 0.07  # 5 standard deviations of 1240 draws
        assert any(0 < sum(d[1:]) < steps - 1 for d in draws)
    else:
        assert all(sum(d[1:]) in (0, steps - 1) for d in draws)
        assert 0.3 < share < 1
    torch.manual_seed(1)
    first = model(x, lengths, targets, target_lengths, 0.5).logits
    torch.manual_seed(1)
    assert torch.equal(model(x, lengths, targets, target_lengths, 0.5).logits, first)
