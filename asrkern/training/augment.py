"""SpecAugment (Park et al. 2019) by torchaudio, on each utterance's own frames."""

from __future__ import annotations

from torch import Tensor

from asrkern._optional import import_torchaudio
from asrkern.training.recipe import Augment


def spec_augment(features: Tensor, lengths: Tensor, settings: Augment) -> Tensor:
    """Features with masked frames and bins, as the global generator draws them; the mean, 0, takes their place.

    Args:
        features: [N, 1, F, T], normalised.
        lengths: [N], frames of each; what lies beyond stays as it is.

    Raises:
        ImportError: torchaudio is missing or does not import.
    """
    if not settings.time_masks and not settings.frequency_masks:
        return features
    augment = import_torchaudio().transforms.SpecAugment(
        settings.time_masks,
        settings.time_mask_frames,
        settings.frequency_masks,
        settings.frequency_mask_bins,
        iid_masks=False,
        p=settings.mask_share,
        zero_masking=True,
    )
    masked = features.clone()
    for row, length in zip(masked, lengths.tolist()):
        row[..., :length] = augment(row[..., :length])
    return masked
