"""asrkern.models.LAS: sizes and keys, exact lengths, independence of batch and padding, targets, options, errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from asrkern.models import LAS, LASConfig
from asrkern.nn import GRU, LSTM
from tests.models.las_twins import HW4Model, ListenAttendSpell, randomise

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

# Each form with each option that changes what is computed.
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


def test_kospeech_has_the_published_size_and_both_bands() -> None:
    with torch.device("meta"):
        model, narrow = LAS.preset("kospeech"), LAS.preset("kospeech", n_features=80)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 20.7
    assert model.listener.bottom_rnn.input_size == 4096
    assert narrow.listener.bottom_rnn.input_size == 2560
    assert (model.listener.middle_rnn.rnn.num_layers, model.listener.top_rnn.rnn.num_layers) == (2, 1)
    assert model.listener.middle_rnn.rnn.input_size == model.listener.top_rnn.rnn.input_size == 1024
    assert type(model.listener.bottom_rnn) is type(model.speller.rnn) is GRU
    assert (model.speller.rnn.hidden_size, model.speller.rnn.num_layers) == (512, 3)


def test_hw4_has_the_described_shapes() -> None:
    with torch.device("meta"):
        model = LAS.preset("hw4")
    state = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert [state[f"listener.embedding.{i}.weight"] for i in (0, 3, 6)] == [
        [256, 28, 3],
        [512, 256, 3],
        [512, 512, 3],
    ]
    assert not any(key.startswith("listener.embedding.") and key.endswith("0.bias") for key in state)
    assert [(b.blstm.input_size, b.blstm.hidden_size, b.blstm.num_layers) for b in model.listener.pblstm] == [
        (1024, 128, 3),
        (512, 128, 3),
        (512, 128, 3),
    ]
    assert all(type(block.blstm) is LSTM and block.blstm.bidirectional for block in model.listener.pblstm)
    assert state["listener.transformer_encoder.1.MLP.0.weight"] == [512, 256]
    assert state["attend.KW.weight"] == state["speller.attend.VW.weight"] == [256, 256]
    assert [list(cell.weight_ih.shape) for cell in model.speller.lstm_cells] == [[2048, 512]] * 3
    assert state["speller.output_to_char.weight"] == [256, 768]
    assert state["speller.linear1.weight"] == [256, 256]
    assert state["speller.char_prob.weight"] == [31, 256]
    assert model.speller.char_prob.weight is model.speller.embedding.weight
    assert model.config.encoder_heads == 2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"name": "hw4", "hidden_size": 8, "conv_channels": (12, 20, 16), "speller_size": 14, "embedding_size": 10, "attention_size": 12}, HW4Model()),
        ({"name": "kospeech", "hidden_size": 9, "conv_channels": (4, 4, 6, 6, 6), "n_features": 20, "num_tokens": 2040}, ListenAttendSpell(tokens=2040)),
        ({"name": "kospeech", "hidden_size": 9, "conv_channels": (4, 4, 6, 6, 6), "n_features": 20, "attention": "location", "attention_size": 11}, ListenAttendSpell(tokens=2040, attention="location")),
        ({"name": "kospeech", "hidden_size": 9, "conv_channels": (4, 4, 6, 6, 6), "n_features": 20, "use_pyramidal": False}, ListenAttendSpell(tokens=2040, layers=(5,))),
    ],
    ids=["hw4", "kospeech", "kospeech hybrid", "kospeech without pyramid"],
)  # fmt: skip
def test_keys_are_those_of_the_lineage(ours: dict, theirs: torch.nn.Module) -> None:
    model = LAS.preset(**ours)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("preset", "features"), [("hw4", 28), ("hw4_mobile", 28), ("kospeech", 128), ("kospeech", 80)]
)
def test_full_width_runs_forward_and_backward(preset: str, features: int) -> None:
    model = LAS.preset(preset, n_features=features)
    x, lengths = batch([40, 33], features)
    targets, target_lengths = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([3, 2])
    output = model(x, lengths, targets, target_lengths)
    loss = model.loss(output.logits, targets, target_lengths)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # A bias before softmax over frames, or before a batch norm, has no effect.
        without = name.endswith(("W_k.bias", "KW.bias", "W_o.bias", "MLP.2.bias"))
        assert without or parameter.grad.abs().max() > 0, name


@torch.no_grad()
@forms
def test_an_utterance_does_not_depend_on_its_batch_or_padding(form: str) -> None:
    model = make(form)
    features = model.config.n_features
    lengths = [57, 16, 40, 63, 31]
    x, _ = batch(lengths, features)
    targets = torch.randint(3, 20, (5, 6))
    target_lengths = torch.tensor([6, 1, 4, 2, 5])
    alone = [
        model(x[i : i + 1, :, :n], torch.tensor([n]), targets[i : i + 1], target_lengths[i : i + 1])
        for i, n in enumerate(lengths)
    ]
    found = [model.greedy(x[i : i + 1, :, :n], torch.tensor([n]), 12)[0] for i, n in enumerate(lengths)]
    for rows, more in (([0, 1, 2, 3, 4], 0), ([4, 1], 9), ([3, 2, 1], 5)):
        frames = max(lengths[i] for i in rows) + more
        padded = torch.full((len(rows), 1, features, frames), float("nan"))
        for target, i in zip(padded, rows):
            target[0, :, : lengths[i]] = x[i, :, : lengths[i]]
        padded[0, :, :, lengths[rows[0]] :] = float("inf")
        counts = torch.tensor([lengths[i] for i in rows])
        output = model(padded, counts, targets[rows], target_lengths[rows])
        for position, i in enumerate(rows):
            steps = int(alone[i].lengths)
            assert output.lengths[position] == steps
            torch.testing.assert_close(
                output.logits[position, :steps], alone[i].logits[0, :steps], rtol=0, atol=1e-5
            )
            own = alone[i].alignments.shape[2]
            assert not output.alignments[position, :, own:].any()
        for hypothesis, i in zip(model.greedy(padded, counts, 12), rows):
            assert hypothesis.tokens == found[i].tokens
            assert hypothesis.log_prob == pytest.approx(found[i].log_prob, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"use_pyramidal": False}, {"remainder": "drop"}])
def test_kospeechs_listener_is_bit_for_bit_independent(options: dict) -> None:
    """Convolutions, batch norms, pools and GRUs: all of it runs on asrkern's operations."""
    model = make("kospeech", **options)
    x, lengths = batch([57, 16, 40, 63], 20, 70)
    together, frames = model.listener(x[:, None], lengths)
    for i, length in enumerate(lengths.tolist()):
        alone, count = model.listener(x[i : i + 1, None, :, :length], lengths[i : i + 1])
        assert frames[i] == count[0]
        assert torch.equal(together[i, : int(count)], alone[0, : int(count)])
        assert not together[i, int(count) :].any()


def up(n: int) -> int:
    return (n + 1) // 2


LENGTHS = {
    # form → what a length becomes, level by level.
    "hw4": lambda n: n // 2 // 2 // 2,
    "hw4, pad": lambda n: up(up(up(n))),
    "hw4, no pyramid": lambda n: n,
    "mobile": lambda n: up(up(n)),
    "kospeech": lambda n: up(up(n // 2 // 2)),
    "kospeech, drop": lambda n: n // 2 // 2 // 2 // 2,
    "kospeech, no pyramid": lambda n: n // 2 // 2,
}


@torch.no_grad()
@pytest.mark.parametrize("form", LENGTHS)
def test_lengths_are_exact(form: str) -> None:
    model = make(form)
    shortest = model.listener.minimum_frames
    assert LENGTHS[form](shortest) == 1
    assert shortest == 1 or LENGTHS[form](shortest - 1) == 0
    lengths = torch.arange(shortest, shortest + 40)
    x, _ = batch(lengths.tolist(), model.config.n_features)
    frames, counts = model.listener(x[:, None], lengths)
    assert counts.tolist() == [LENGTHS[form](n) for n in lengths.tolist()]
    assert torch.equal(model.listener.output_lengths(lengths), counts)
    assert frames.shape == (40, int(counts.max()), model.config.listener_size)
    for row, count in zip(frames, counts.tolist()):
        assert row[:count].abs().sum(1).ne(0).all()


@torch.no_grad()
@pytest.mark.parametrize("preset", ["hw4", "kospeech"])
def test_reversed_input_is_the_mirrored_utterance(preset: str) -> None:
    plain, reverse = make(preset), make(f"{preset}, reversed")
    reverse.load_state_dict(plain.state_dict())
    x, lengths = batch([57, 40, 63], plain.config.n_features, 66)
    targets, target_lengths = torch.randint(3, 20, (3, 4)), torch.tensor([4, 2, 3])
    mirrored = x.clone()
    for row, length in zip(mirrored, lengths.tolist()):
        row[:, :length] = row[:, :length].flip(1)
    got, expected = (
        model(features, lengths, targets, target_lengths).logits
        for model, features in ((reverse, x), (plain, mirrored))
    )
    assert torch.equal(got, expected)
    assert (got - plain(x, lengths, targets, target_lengths).logits).abs().max() > 1e-4


@torch.no_grad()
@forms
def test_steps_see_the_speech_and_the_tokens_before_them_only(form: str) -> None:
    model = make(form)
    x, lengths = batch([57, 40], model.config.n_features)
    targets, target_lengths = torch.randint(3, 20, (2, 6)), torch.tensor([6, 6])
    before = model(x, lengths, targets, target_lengths).logits
    changed = targets.clone()
    changed[:, 3] = (targets[:, 3] - 3 + 1) % 17 + 3
    after = model(x, lengths, changed, target_lengths).logits
    first = 4 + model.config.predicts_sos  # the step whose input is token 3
    torch.testing.assert_close(after[:, :first], before[:, :first], rtol=0, atol=1e-6)
    assert (after[:, first] - before[:, first]).abs().amax(-1).min() > 1e-5
    other = model(torch.randn_like(x), lengths, targets, target_lengths).logits
    assert (other - before).abs().max() > 1e-4


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
        model = make(form, dropout=0.0)
        model.load_state_dict(state)
        model.train()
        padded = torch.full((2, features, frames), float("nan"))
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
        torch.testing.assert_close(long[name], value, rtol=0, atol=1e-4 * scale, msg=name)


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


@torch.no_grad()
def test_double_precision() -> None:
    model = make("hw4").double()
    x, lengths = batch([57, 40], 28)
    targets, target_lengths = torch.randint(3, 20, (2, 6)), torch.tensor([6, 2])
    logits = model(x.double(), lengths, targets, target_lengths).logits
    assert logits.dtype == torch.float64
    single = model.float()(x, lengths, targets, target_lengths).logits
    torch.testing.assert_close(single.double(), logits, rtol=0, atol=1e-4)


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
        ({"lengths": [40.0, 30.0]}, "lengths: expected integers"),
        ({"targets": [[3, 31], [5, 6]]}, r"targets: expected 0 to 30 .*received 3 to 31"),
        ({"targets": [[3, -1], [5, 6]]}, r"targets: expected 0 to 30 .*received -1 to 5"),
        ({"targets": [[3, 0], [5, 6]]}, r"targets: expected tokens without pad, start and end \[0, 1, 2\].*received 0"),
        ({"targets": [[1, 4], [5, 6]]}, r"targets: expected tokens without pad.*received 1"),
        ({"targets": [[3, 4], [2, 6]]}, r"targets: expected tokens without pad.*received 2"),
        ({"targets": [3, 4]}, r"targets: expected shape \[2, L\], received \[2\]"),
        ({"targets": [[3, 4]]}, r"targets: expected shape \[2, L\], received \[1, 2\]"),
        ({"targets": [[3.0, 4.0], [5.0, 6.0]]}, "targets: expected integers, received torch.float32"),
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
    tensors = {k: v if k == "teacher_forcing" else torch.as_tensor(v) for k, v in values.items()}
    if changes.get("lengths") == []:
        tensors = {k: v.long() for k, v in tensors.items()}
    with pytest.raises(ValueError, match=message):
        make("hw4")(features, **tensors)


def test_bad_types_and_logits_are_named() -> None:
    model = make("hw4")
    x, lengths = torch.randn(2, 28, 40), torch.tensor([40, 30])
    targets, target_lengths = torch.tensor([[3, 4], [5, 6]]), torch.tensor([2, 1])
    with pytest.raises(TypeError, match="targets: expected a tensor, received list"):
        model(x, lengths, [[3, 4], [5, 6]], target_lengths)
    with pytest.raises(TypeError, match="lengths: expected a tensor, received list"):
        model.greedy(x, [40, 30])
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
