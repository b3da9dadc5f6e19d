"""The defects of the two lineages: each is shown on a plain-torch model as it was, and gone from asrkern's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from asrkern.models import LAS
from asrkern.models.speller_steps import Steps, steps_of
from tests.models.las_twins import EOS, SOS, HW4Model, ListenAttendSpell, randomise


def ours(twin: nn.Module, tmp_path: Path) -> LAS:
    torch.save(twin.state_dict(), tmp_path / "model.pt")
    return LAS.from_checkpoint(tmp_path / "model.pt")


def two_utterances(features: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The second is much shorter; zeros beyond it, as the lineages pad."""
    x, lengths = torch.randn(2, features, 72), torch.tensor([72, 35])
    x[1, :, 35:] = 0
    return x, lengths, torch.randint(3, 20, (2, 5)), torch.tensor([5, 5])


@torch.no_grad()
def test_hw4_clamped_lengths(tmp_path: Path) -> None:
    """Of 35 frames, three halvings leave 4; clamped to half of the longest they were 9, that is the batch's all."""
    twin = randomise(HW4Model())
    x, lengths, *_ = two_utterances(28)
    _, clamped = twin.listener(x.transpose(1, 2), lengths)
    assert clamped.tolist() == [9, 9]
    frames, exact = ours(twin, tmp_path).listener(x[:, None], lengths)
    assert exact.tolist() == [9, 4]
    assert not frames[1, 4:].any()


def logits_of_hw4(twin: HW4Model, x: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
    ends = [torch.full((len(x), 1), token) for token in (SOS, EOS)]
    return twin(x.transpose(1, 2), lengths, torch.cat((ends[0], targets, ends[1]), 1))


@torch.no_grad()
def test_hw4_attended_to_padding(tmp_path: Path) -> None:
    """Even with exact lengths an utterance's output changed with its batch; asrkern's does not."""
    twin = randomise(HW4Model())
    model = ours(twin, tmp_path)
    x, lengths, targets, target_lengths = two_utterances(28)
    together = logits_of_hw4(twin, x, lengths, targets)[1]
    alone = logits_of_hw4(twin, x[1:, :, :35], lengths[1:], targets[1:])[0]
    assert (together - alone).abs().max() > 1e-2
    got = model(x, lengths, targets, target_lengths).logits[1]
    torch.testing.assert_close(got, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_kospeech_had_no_masks(tmp_path: Path) -> None:
    twin = randomise(ListenAttendSpell())
    model = ours(twin, tmp_path)
    x, lengths, targets, target_lengths = two_utterances(20)
    spelled = torch.cat((targets, torch.full((2, 1), 38)), 1)
    together = twin(x.transpose(1, 2), spelled)[1]
    alone = twin(x[1:, :, :35].transpose(1, 2), spelled[1:])[0]
    assert (together - alone).abs().max() > 1e-2
    got = model(x, lengths, targets, target_lengths).logits[1]
    torch.testing.assert_close(got, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_kospeechs_decoder_began_anywhere(tmp_path: Path) -> None:
    twin = randomise(ListenAttendSpell())
    model = ours(twin, tmp_path)
    x, lengths, targets, target_lengths = two_utterances(20)
    twin.speller.random_state = True
    first, second = (twin(x.transpose(1, 2), targets) for _ in range(2))
    assert (first - second).abs().max() > 1e-2
    first, second = (model(x, lengths, targets, target_lengths).logits for _ in range(2))
    assert torch.equal(first, second)
    assert not any(h.any() for h in model.speller.start(model.listen(x, lengths)).hidden)


@torch.no_grad()
@pytest.mark.parametrize("make", [HW4Model, ListenAttendSpell])
def test_decoding_went_on_after_the_end(make: type[nn.Module], tmp_path: Path) -> None:
    twin = randomise(make())
    hw4 = make is HW4Model
    end = EOS if hw4 else 38
    (twin.speller.char_prob if hw4 else twin.speller.out).bias[end] = 100
    x, lengths, *_ = two_utterances(28 if hw4 else 20)
    spoken = x.transpose(1, 2)
    logits = twin(spoken, lengths, steps=50) if hw4 else twin(spoken, steps=50)
    assert logits.argmax(-1).eq(end).all() and logits.shape[1] == 50
    model = ours(twin, tmp_path)
    for hypothesis in model.greedy(x, lengths):
        assert (hypothesis.tokens, hypothesis.ended) == ([], True)
    memory = model.listen(x, lengths)
    for steps in (steps_of(model.speller, memory), Steps(model.speller, memory)):
        tokens, counts, _ = steps.greedy(SOS if hw4 else 37, end, 50)
        assert counts.tolist() == [1, 1] and tokens[:, 0].eq(end).all() and not tokens[:, 1:].any()


@torch.no_grad()
def test_kospeech_without_attention_did_not_listen(tmp_path: Path) -> None:
    twin = randomise(ListenAttendSpell(attention=None))
    model = ours(twin, tmp_path)
    x, lengths, targets, target_lengths = two_utterances(20)
    assert torch.equal(twin(x.transpose(1, 2), targets), twin(-x.transpose(1, 2), targets))
    heard, other = (model(y, lengths, targets, target_lengths).logits for y in (x, -x))
    assert (heard - other).abs().max() > 1e-2
