"""asrkern.data.mel against torchaudio's matrices, which it computes in float32."""

from __future__ import annotations

import warnings

import pytest
import torch

from asrkern.data.mel import dct_matrix, mel_filters


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
