"""The matrices of log-mel spectrograms and their cepstra, computed in float64."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

# Slaney's scale: linear up to 1 kHz, which is mel 15; above, 27 mels for each factor of 6.4.
_HERTZ_PER_MEL = 200 / 3
_BEND_HERTZ, _BEND_MEL = 1000.0, 15.0
_LOG_STEP = math.log(6.4) / 27


def mel_filters(n_mels: int, bins: int, sample_rate: int) -> Tensor:
    """Triangles of equal area, evenly spaced in mel from 0 Hz to half the sample rate.

    (Slaney 1998, "Auditory Toolbox"; librosa's default.)

    Args:
        n_mels: bands.
        bins: of the DFT, from 0 Hz to half the sample rate.
        sample_rate: in Hz.

    Returns:
        [n_mels, bins] float32.

    Warns:
        UserWarning: bands are too narrow to hold a bin, so they are always silent.
    """
    highest = sample_rate / 2
    last = (
        highest / _HERTZ_PER_MEL
        if highest < _BEND_HERTZ
        else _BEND_MEL + math.log(highest / _BEND_HERTZ) / _LOG_STEP
    )
    mels = torch.linspace(0, last, n_mels + 2, dtype=torch.float64)
    above = _BEND_HERTZ * torch.exp(_LOG_STEP * (mels - _BEND_MEL))
    edges = torch.where(mels < _BEND_MEL, _HERTZ_PER_MEL * mels, above)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hertz = torch.linspace(0, highest, bins, dtype=torch.float64)
    heights = torch.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre))
    filters = heights.clamp(min=0) * 2 / (high - low)
    empty = int((filters.amax(1) == 0).sum())
    if empty:
        warnings.warn(
            f"n_mels: {empty} of {n_mels} bands are too narrow to hold one of {bins} bins: take fewer, or a longer n_fft",
            stacklevel=3,
        )
    return filters.float()


def htk_mel_filters(n_mels: int, bins: int, sample_rate: int, low_hertz: float, high_hertz: float) -> Tensor:
    """Triangles of equal height, evenly spaced in HTK's mel, as Kaldi makes them: straight in mel, not in Hz.

    Args:
        n_mels: bands.
        bins: of the DFT, from 0 Hz to half the sample rate.
        sample_rate: in Hz.
        low_hertz, high_hertz: where the first band begins and the last one ends.

    Returns:
        [n_mels, bins] float32.
    """
    hertz = torch.tensor([low_hertz, high_hertz], dtype=torch.float64)
    low, high = (1127 * torch.log1p(hertz / 700)).tolist()
    edges = torch.linspace(low, high, n_mels + 2, dtype=torch.float64)[:, None]
    mels = 1127 * torch.log1p(torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64) / 700)
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    # Kaldi does not use the bin at half the sample rate.
    filters[:, -1] = 0
    return filters.float()


def dct_matrix(n_mfcc: int, n_mels: int) -> Tensor:
    """The first n_mfcc rows of the orthonormal DCT-II, [n_mfcc, n_mels] float32."""
    n = torch.arange(n_mels, dtype=torch.float64)
    k = torch.arange(n_mfcc, dtype=torch.float64)[:, None]
    dct = torch.cos(math.pi / n_mels * (n + 0.5) * k) * math.sqrt(2 / n_mels)
    dct[0] /= math.sqrt(2)
    return dct.float()


def cepstral_warp(n_mfcc: int, factor: float, sample_rate: int, n_mels: int = 40) -> Tensor:
    """What makes the cepstra of a spectrum those of the same spectrum with all frequencies times a factor.

    The cepstra's smooth log spectrum over mel bands is interpolated between bands, and transformed back. (Pitz & Ney
    2005 show that any warping of the frequency axis is a linear map of cepstra.)

    Args:
        n_mfcc: cepstra, not liftered, the lowest first.
        factor: above 1 frequencies rise, as in a shorter vocal tract, or in a recording that is played faster.
        sample_rate: in Hz; the bands reach up to half of it.
        n_mels: bands, evenly spaced in HTK's mel.

    Returns:
        [n_mfcc, n_mfcc] float32, to be multiplied by [n_mfcc, frames].
    """
    highest = 1127 * math.log1p(sample_rate / 2 / 700)
    step = highest / (n_mels + 1)
    hertz = 700 * torch.expm1(step * torch.arange(1, n_mels + 1, dtype=torch.float64) / 1127)
    places = (1127 * torch.log1p(hertz / factor / 700) / step - 1).clamp(0, n_mels - 1)
    below = places.long().clamp(max=n_mels - 2)
    share = (places - below)[:, None]
    unit = torch.eye(n_mels, dtype=torch.float64)
    warp = (1 - share) * unit[below] + share * unit[below + 1]
    dct = dct_matrix(n_mfcc, n_mels).double()
    return (dct @ warp @ dct.t()).float()
