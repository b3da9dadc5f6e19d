"""asrkern.data.mel against torchaudio's matrices, which it computes in float32."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from asrkern.data.mel import cepstral_warp, dct_matrix, mel_filters


@pytest.mark.parametrize(
    "n_mels, bins, rate", [(80, 201, 16000), (23, 257, 16000), (40, 129, 8000), (7, 33, 1600)]
)
def test_filters_are_torchaudios(torchaudio, n_mels, bins, rate):
    expected = torchaudio.functional.melscale_fbanks(
        bins, 0.0, rate / 2, n_mels, rate, norm="slaney", mel_scale="slaney"
    )
    found = mel_filters(n_mels, bins, rate)
    torch.testing.assert_close(found, expected.t(), rtol=0, atol=2e-5 * expected.max().item())


def test_bands_without_a_bin_are_named():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mel_filters(80, 201, 16000)
    with pytest.warns(UserWarning, match="n_mels: 11 of 180 bands are too narrow"):
        filters = mel_filters(180, 201, 16000)
    assert (filters.amax(1) == 0).sum() == 11


@pytest.mark.parametrize("n_mfcc, n_mels", [(28, 80), (13, 23), (40, 40), (1, 1)])
def test_dct_is_torchaudios_and_orthonormal(torchaudio, n_mfcc, n_mels):
    dct = dct_matrix(n_mfcc, n_mels)
    torch.testing.assert_close(
        dct, torchaudio.functional.create_dct(n_mfcc, n_mels, "ortho").t(), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(dct @ dct.t(), torch.eye(n_mfcc), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.2])
def test_a_formant_moves_by_the_factor(factor):
    """All cepstra of a peak at 1 kHz make the spectrum anew, whose peak is then elsewhere."""
    bands = 200
    hertz = 700 * torch.expm1(torch.arange(1, bands + 1) / (bands + 1) * math.log1p(8000 / 700))
    peak = torch.exp(-0.5 * ((hertz - 1000) / 100) ** 2)
    dct = dct_matrix(bands, bands)
    warped = dct.t() @ (cepstral_warp(bands, factor, 16000, bands) @ (dct @ peak))
    torch.testing.assert_close(
        warped, torch.exp(-0.5 * ((hertz / factor - 1000) / 100) ** 2), rtol=0, atol=0.02
    )
    assert float(hertz[warped.argmax()]) == pytest.approx(1000 * factor, rel=0.03)


def test_few_cepstra_are_warped_as_their_smooth_spectrum():
    """Nothing moves by 1; a flat spectrum stays flat; there and back is nearly the same for the lowest cepstra."""
    torch.testing.assert_close(cepstral_warp(13, 1.0, 16000), torch.eye(13), rtol=0, atol=1e-6)
    warp = cepstral_warp(13, 1.1, 16000)
    torch.testing.assert_close(warp[:, 0], torch.eye(13)[:, 0], rtol=0, atol=1e-6)
    assert float((warp - torch.eye(13)).abs().max()) > 0.2
    back = cepstral_warp(13, 1 / 1.1, 16000) @ warp
    torch.testing.assert_close(back[:4, :4], torch.eye(4), rtol=0, atol=0.1)
