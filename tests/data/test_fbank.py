"""Kaldi's filterbank energies against a loop over frames and bands in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asrkern.data import Fbank
from asrkern.data.fbank import CONVENTIONS


def plain(samples: np.ndarray, n_mels: int, convention: str, rate: int, cmvn: bool = False) -> np.ndarray:
    """The definition: [n_mels, frames]."""
    name = CONVENTIONS[convention]
    window, hop = round(0.025 * rate), round(0.01 * rate)
    n_fft = window
    if name.power_of_two:
        n_fft = 1
        while n_fft < window:
            n_fft *= 2
    high = name.high_hertz if name.high_hertz > 0 else rate / 2 + name.high_hertz
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft

    def mel(hertz):
        if not name.slaney:
            return 1127 * np.log(1 + hertz / 700)
        return np.where(
            hertz < 1000, hertz * 3 / 200, 15 + np.log(np.maximum(hertz, 1) / 1000) * 27 / np.log(6.4)
        )

    edges = np.linspace(mel(np.float64(name.low_hertz)), mel(np.float64(high)), n_mels + 2)
    if name.slaney:
        edges = np.where(edges < 15, edges * 200 / 3, 1000 * np.exp((edges - 15) * np.log(6.4) / 27))
    places = bins if name.slaney else mel(bins)
    filters = np.zeros((n_mels, len(bins)))
    for band in range(n_mels):
        low, centre, top = edges[band : band + 3]
        for i, place in enumerate(places[:-1]):
            if low < place < top:
                filters[band, i] = min((place - low) / (centre - low), (top - place) / (top - centre))
        if name.slaney:
            filters[band] *= 2 / (top - low)
    n = np.arange(window)
    weights = 0.5 - 0.5 * np.cos(2 * np.pi * n / (window - 1 if name.povey else window))
    weights = weights**0.85 if name.povey else weights
    frames = (len(samples) + hop // 2) // hop
    found = np.empty((n_mels, frames))
    for t in range(frames):
        frame = np.empty(window)
        for i in range(window):
            place = t * hop + hop // 2 - window // 2 + i
            while not 0 <= place < len(samples):
                place = -place - 1 if place < 0 else 2 * len(samples) - 1 - place
            frame[i] = samples[place] * name.scale
        if name.remove_mean:
            frame -= frame.mean()
        frame = frame - name.preemphasis * np.array([frame[0], *frame[:-1]])
        power = abs(np.fft.rfft(frame * weights, n_fft)) ** 2
        found[:, t] = np.log(np.maximum(filters @ power, 2.0**-23))
    if cmvn:
        found = (found - found.mean(1, keepdims=True)) / (found.std(1, keepdims=True) + 1e-5)
    return found


def sound(samples: int, seed: int = 0) -> torch.Tensor:
    x = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    x[samples // 3 : samples // 2] *= 1e-3
    return x


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("samples, rate, n_mels", [(2123, 16000, 23), (81, 16000, 20), (1237, 8000, 17)])
def test_against_the_definition(convention: str, samples: int, rate: int, n_mels: int) -> None:
    x = sound(samples)
    found = Fbank(n_mels, convention, rate)(x)
    expected = torch.from_numpy(plain(x.double().numpy(), n_mels, convention, rate))
    assert found.dtype == torch.float32 and found.shape == expected.shape
    # Float32 sums of up to 400 values whose squares nearly cancel in the quiet part.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)


def test_normalised_bands_and_pieces() -> None:
    x = sound(4000)
    features = Fbank(80, "nemo", cmvn=True)
    expected = torch.from_numpy(plain(x.double().numpy(), 80, "nemo", 16000, cmvn=True))
    whole = features(x)
    torch.testing.assert_close(whole.double(), expected, rtol=0, atol=2e-4)
    features.piece_frames = 7
    torch.testing.assert_close(features(x), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Fbank(80, "espnet"), "convention: expected one of icefall, wenet, nemo, gigaam, received 'espnet'"),
        (lambda: Fbank(0), "n_mels: expected 1 to 257, received 0"),
        (lambda: Fbank(hop_seconds=0.0), "window_seconds, hop_seconds: expected at least 2 and 1 samples"),
        (lambda: Fbank()(torch.zeros(79)), "samples: expected at least 80, half a hop, received 79"),
        (lambda: Fbank()(torch.zeros(2, 400)), r"samples: expected floating point of shape \[samples\]"),
    ],
)  # fmt: skip
def test_what_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
