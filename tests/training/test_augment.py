"""SpecAugment draws what torchaudio's does, and masks no padding."""

from __future__ import annotations

import sys

import pytest
import torch

from asrkern.data import MFCC
from asrkern.training.augment import augment, spec_augment
from asrkern.training.recipe import Augment


@pytest.mark.parametrize("masks", [(2, 3), (0, 1), (4, 0)])
def test_masks_are_torchaudios(torchaudio, masks):
    time_masks, frequency_masks = masks
    settings = Augment(
        time_masks=time_masks,
        time_mask_frames=40,
        frequency_masks=frequency_masks,
        frequency_mask_bins=9,
        mask_share=0.3,
    )
    features, lengths = torch.rand(5, 1, 23, 211) + 1, torch.tensor([211, 60, 3, 1, 143])
    augment = torchaudio.transforms.SpecAugment(
        time_masks, 40, frequency_masks, 9, iid_masks=False, p=0.3, zero_masking=True
    )
    expected = features.clone()
    torch.manual_seed(5)
    for row, length in zip(expected, lengths.tolist()):
        row[..., :length] = augment(row[..., :length])
    torch.manual_seed(5)
    found = spec_augment(features, lengths, settings)
    assert torch.equal(found, expected)
    assert (found == 0).any() and features.all()


def test_noise_is_new_in_each_step_and_below_the_masks():
    features, lengths = torch.randn(2, 1, 40, 300), torch.tensor([300, 200])
    torch.manual_seed(1)
    first, second = (augment(features, lengths, Augment(noise=0.5)) for _ in range(2))
    assert float((first - features).std()) == pytest.approx(0.5, rel=0.02)
    assert float((first - second).std()) == pytest.approx(0.5 * 2**0.5, rel=0.02)
    settings = Augment(noise=0.5, time_masks=1, time_mask_frames=100)
    torch.manual_seed(1)
    masked = augment(features, lengths, settings)
    torch.manual_seed(1)
    assert torch.equal(
        masked, spec_augment(augment(features, lengths, Augment(noise=0.5)), lengths, settings)
    )
    assert (masked == 0).any()
    assert augment(features, lengths, Augment()) is features


def test_without_masks_nothing_changes():
    features = torch.rand(2, 1, 7, 11)
    assert torch.equal(spec_augment(features, torch.tensor([11, 4]), Augment()), features)


def runs(masked: torch.Tensor) -> torch.Tensor:
    """How many frames and how many bins of [N, 1, F, T] are masked throughout: [N, 2]."""
    return torch.stack([(masked == 0).all(2).sum((1, 2)), (masked == 0).all(3).sum((1, 2))], 1)


def test_masks_of_frames_grow_with_the_utterance_and_those_of_bins_do_not():
    """AlgoPerf's: one mask covers up to 5 % of an utterance's frames, however long it is, and up to 27 of 80 bins."""
    settings = Augment(
        time_masks=1, time_mask_frames=0, mask_share=0.05, frequency_masks=1, frequency_mask_bins=27,
        frequency_mask_share=0.5,
    )  # fmt: skip
    lengths = torch.tensor([1998] * 150 + [200] * 150)
    features = torch.rand(300, 1, 80, 1998) + 1
    masked = spec_augment(features, lengths, settings)
    assert masked[150:, ..., 200:].all(), "padding"
    masked[150:, ..., 200:] = 0  # Now a bin that is masked is so in all frames.
    (long, bins), (short, _) = (runs(part[..., :length]).amax(0) for part, length in
                                ((masked[:150], 1998), (masked[150:], 200)))  # fmt: skip
    assert 85 <= long < 0.05 * 1998
    assert 7 <= short < 0.05 * 200
    assert 22 <= bins < 27
    narrow = spec_augment(
        features[:150], lengths[:150], settings.model_copy(update={"frequency_mask_share": None})
    )
    assert runs(narrow)[:, 1].max() < 0.05 * 80


def test_training_needs_no_torchaudio(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    features = MFCC(13, 23)(torch.randn(4000))[None, None]
    masked = spec_augment(features, torch.tensor([26]), Augment(time_masks=3, frequency_masks=3))
    assert (masked == 0).any() and masked.shape == features.shape
