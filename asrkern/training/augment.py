"""Noise and SpecAugment (Park et al. 2019), on each utterance's own frames."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.training.recipe import Augment


def augment(features: Tensor, lengths: Tensor, settings: Augment) -> Tensor:
    """Features with Gaussian noise, then masks, drawn from the global generator.

    Noise on normalised features is what CTC was introduced with (Graves et al. 2006: a standard deviation of 0.6).

    Args:
        features: [N, 1, F, T], normalised.
        lengths: [N], frames of each utterance.
    """
    if settings.noise:
        features = features + settings.noise * torch.randn_like(features)
    return spec_augment(features, lengths, settings)


def spec_augment(features: Tensor, lengths: Tensor, settings: Augment) -> Tensor:
    """Features with masked frames and bins, drawn from the global generator. Masked values become 0, the mean.

    The draws are those of ``torchaudio.transforms.SpecAugment``: the same state of the generator gives the same masks.
    AlgoPerf's model masks the same input, before its first convolution, in the same order: first frames, then bins.

    Args:
        features: [N, 1, F, T], normalised.
        lengths: [N], frames of each utterance; frames beyond stay as they are.
    """
    if not settings.time_masks and not settings.frequency_masks:
        return features
    masked = features.clone()
    frequency_share = settings.frequency_mask_share or settings.mask_share
    for row, length in zip(masked, lengths.tolist()):
        for _ in range(settings.time_masks):
            _mask(row[..., :length], -1, settings.time_mask_frames or length, settings.mask_share)
        for _ in range(settings.frequency_masks):
            _mask(row[..., :length], -2, settings.frequency_mask_bins, frequency_share)
    return masked


def _mask(features: Tensor, axis: int, widest: int, share: float) -> None:
    """Zero a random stretch of an axis, in place: fewer than ``widest`` values and than this share of it."""
    extent = features.shape[axis]
    widest = min(widest, int(extent * share))
    if widest < 1:
        return
    width = torch.rand(1) * widest
    start = int(torch.rand(1) * (extent - width))
    features.narrow(axis, start, int(width)).zero_()
