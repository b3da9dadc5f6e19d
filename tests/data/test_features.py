"""asrkern.data.features against a DFT written out, and its invariances."""

from __future__ import annotations

import math

import numpy
import numpy as np
import pytest
import torch

from asrkern.data import Spectrogram, collate


def spectrogram_by_definition(samples: torch.Tensor, *, periodic: bool) -> torch.Tensor:
    """161 bins at 16 kHz in float64: windows, DFT sums and statistics without torch.stft."""
    x = numpy.pad(samples.double().numpy(), 160, mode="reflect")
    n = numpy.arange(320)
    window = 0.54 - 0.46 * numpy.cos(2 * math.pi * n / (320 if periodic else 319))
    dft = numpy.exp(-2j * math.pi * numpy.outer(numpy.arange(161), n) / 320)
    frames = [x[start : start + 320] * window for start in range(0, len(samples) + 1, 160)]
    features = numpy.log1p(numpy.abs(dft @ numpy.stack(frames, 1)))
    return torch.from_numpy((features - features.mean()) / features.std(ddof=1))


@pytest.mark.parametrize("samples", [161, 319, 320, 1600, 5003])
@pytest.mark.parametrize("periodic", [True, False])
def test_matches_the_definition(samples, periodic):
    x = 0.3 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    y = Spectrogram(periodic=periodic)(x)
    assert y.shape == (161, samples // 160 + 1)
    torch.testing.assert_close(y.double(), spectrogram_by_definition(x, periodic=periodic), rtol=0, atol=2e-5)


def test_the_two_windows_differ_by_more_than_the_tolerance():
    x = 0.3 * torch.randn(5003)
    assert (Spectrogram()(x) - Spectrogram(periodic=False)(x)).abs().max() > 1e-3


def test_mean_is_zero_and_unbiased_std_one():
    y = Spectrogram()(0.1 * torch.randn(8001)).double()
    assert abs(y.mean()) < 1e-6
    assert abs(y.std() - 1) < 1e-6


def test_a_tone_is_in_its_bin():
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(4800) / 16000)
    assert (Spectrogram()(tone)[:, 1:-1].argmax(0) == 20).all()


def test_other_rates_and_windows():
    spectrogram = Spectrogram(8000, 0.025, 0.0125)
    assert spectrogram.bins == 101
    assert spectrogram(torch.randn(8000)).shape == (101, 81)


def test_digital_silence_is_zero_and_one_quantisation_step_is_not_flattened():
    assert torch.equal(Spectrogram()(torch.zeros(1600)), torch.zeros(161, 11))
    quietest = torch.zeros(16000)
    quietest[::7] = 2**-15
    assert abs(Spectrogram()(quietest).std() - 1) < 1e-5


def test_spectrogram_has_no_state():
    assert Spectrogram().state_dict() == {}


@pytest.mark.parametrize("samples", [[0.0] * 1600, np.zeros(1600), None])
def test_samples_that_are_no_tensor(samples):
    with pytest.raises(TypeError, match="samples: expected a Tensor, received"):
        Spectrogram()(samples)


@pytest.mark.parametrize(
    "samples, message",
    [
        (torch.zeros(160), r"more than half a window \(160 samples\), received 160"),
        (torch.zeros(0), r"more than half a window \(160 samples\), received 0"),
        (torch.zeros(1, 1600), r"received torch.float32 of shape \[1, 1600\]"),
        (torch.zeros(1600, dtype=torch.int16), r"received torch.int16 of shape \[1600\]"),
    ],
)
def test_bad_samples_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        Spectrogram()(samples)


def test_a_window_of_no_samples_is_refused():
    with pytest.raises(ValueError, match="window_seconds, hop_seconds: expected at least 2 and 1 samples"):
        Spectrogram(16000, 0.02, 0.0)


def test_collate_pads_with_zeros_in_the_given_order():
    features = [torch.randn(5, frames) for frames in (3, 7, 1)]
    batch, lengths = collate(features)
    assert batch.shape == (3, 1, 5, 7)
    assert lengths.tolist() == [3, 7, 1] and lengths.dtype == torch.int64
    for row, x in zip(batch, features):
        assert torch.equal(row[0, :, : x.shape[1]], x)
        assert not row[0, :, x.shape[1] :].any()


def test_features_do_not_depend_on_batch_mates():
    spectrogram = Spectrogram()
    waveforms = [0.2 * torch.randn(samples) for samples in (4000, 16000, 333)]
    batch, lengths = collate([spectrogram(x) for x in waveforms])
    for row, frames, x in zip(batch, lengths, waveforms):
        assert torch.equal(row[0, :, :frames], spectrogram(x))


@pytest.mark.parametrize(
    "features, message",
    [
        ([], "expected at least one utterance, received none"),
        (
            [torch.zeros(5, 3), torch.zeros(4, 3)],
            r"features\[1\]: expected shape \[5, frames\], received \[4, 3\]",
        ),
        ([torch.zeros(5, 3), torch.zeros(5)], r"features\[1\]: expected shape \[5, frames\], received \[5\]"),
    ],
)
def test_collate_refuses(features, message):
    with pytest.raises(ValueError, match=message):
        collate(features)


@pytest.mark.parametrize("normalization", ["utterance", "running", (1.0, 2.0)])
@pytest.mark.parametrize("samples", [160 * 6, 160 * 7 - 1, 160 * 7, 160 * 14 + 3, 8001])
def test_pieces_are_the_whole(samples, normalization, monkeypatch):
    """Their edges too: the same bits."""
    x, spectrogram = torch.randn(samples), Spectrogram(normalization=normalization)
    whole = spectrogram(x)
    for frames in (1, 2, 7):
        monkeypatch.setattr(spectrogram, "piece_frames", frames)
        assert torch.equal(spectrogram(x), whole)


def test_gradients_reach_the_samples():
    x = (0.1 * torch.randn(800)).double().requires_grad_()
    weights = torch.randn(161, 6)
    (Spectrogram()(x) * weights).sum().backward()
    step = 1e-3 * torch.randn(800).double()
    with torch.no_grad():
        ahead, behind = ((Spectrogram()(y) * weights).double().sum() for y in (x + step, x - step))
    torch.testing.assert_close((x.grad * step).sum(), (ahead - behind) / 2, rtol=0.02, atol=1e-2)
