"""asrkern.models.LAS: sizes and keys, exact lengths, independence of batch and padding."""

from __future__ import annotations

import pytest
import torch

from asrkern.models import LAS
from asrkern.nn import GRU, LSTM
from tests.models.las_forms import batch, forms, make
from tests.models.las_twins import HW4Model, ListenAttendSpell


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


@torch.no_grad()
def test_double_precision() -> None:
    model = make("hw4").double()
    x, lengths = batch([57, 40], 28)
    targets, target_lengths = torch.randint(3, 20, (2, 6)), torch.tensor([6, 2])
    logits = model(x.double(), lengths, targets, target_lengths).logits
    assert logits.dtype == torch.float64
    assert model.loss(logits, targets, target_lengths).dtype == torch.float64
    single = model.float()(x, lengths, targets, target_lengths).logits
    torch.testing.assert_close(single.double(), logits, rtol=0, atol=1e-4)
