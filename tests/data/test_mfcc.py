"""asrkern.data.MFCC against the transform written out, and against torchaudio on speech."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from asrkern.data import MFCC, LogMelSpectrogram, load_audio, read_manifest


def log_mel(samples: Tensor, n_mels: int) -> Tensor:
    """Log-mel power in float64, not normalised, from the tested filters."""
    module = LogMelSpectrogram(n_mels)
    spectrum = torch.stft(
        samples.double(), 400, 160, window=module.window.double(), pad_mode="reflect", return_complex=True
    )
    return (module.filters.double() @ spectrum.abs().square() + 2.0**-24).log()


def mfcc_by_definition(samples: Tensor, n_mfcc: int, n_mels: int) -> Tensor:
    mel = log_mel(samples, n_mels)
    rows = []
    for k in range(n_mfcc):
        scale = math.sqrt((1 if k == 0 else 2) / n_mels)
        cosines = [scale * math.cos(math.pi * k * (2 * n + 1) / (2 * n_mels)) for n in range(n_mels)]
        c = sum(w * band for w, band in zip(cosines, mel))
        rows.append((c - c.mean()) / math.sqrt(sum((c - c.mean()) ** 2) / len(c)))
    return torch.stack(rows)


@pytest.mark.parametrize(("n_mfcc", "n_mels"), [(28, 80), (13, 40), (40, 40)])
@pytest.mark.parametrize("samples", [500, 5003])
def test_matches_the_definition(n_mfcc: int, n_mels: int, samples: int) -> None:
    x = 0.3 * torch.randn(samples)
    mfcc = MFCC(n_mfcc, n_mels)
    y = mfcc(x)
    assert y.shape == (mfcc.bins, samples // 160 + 1) == (n_mfcc, samples // 160 + 1)
    torch.testing.assert_close(y.double(), mfcc_by_definition(x, n_mfcc, n_mels), rtol=0, atol=1e-3)


def test_each_coefficient_has_mean_zero_and_variance_one() -> None:
    y = MFCC()(0.1 * torch.randn(8001)).double()
    assert y.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(28, dtype=torch.float64), rtol=0, atol=1e-5)


def test_mfcc_of_speech_is_torchaudios(data_dir, torchaudio) -> None:
    T = torchaudio.transforms

    x = load_audio(read_manifest(data_dir / "grid" / "dev.jsonl")[0].audio_path)
    options = {
        "n_fft": 400,
        "hop_length": 160,
        "n_mels": 80,
        "window_fn": torch.hamming_window,
        "norm": "slaney",
        "mel_scale": "slaney",
    }
    log = (T.MelSpectrogram(16000, **options)(x).double() + 2**-24).log()
    transform = T.MFCC(16000, 28, log_mels=True, melkwargs=options).dct_mat.double()
    cepstrum = transform.t() @ log
    expected = (cepstrum - cepstrum.mean(1, keepdim=True)) / cepstrum.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(MFCC()(x).double(), expected, rtol=0, atol=1e-3)


def test_silence_is_zero_and_the_module_has_no_state() -> None:
    assert not MFCC()(torch.zeros(1600)).any()
    assert MFCC().state_dict() == {}


def test_too_many_coefficients_are_refused() -> None:
    with pytest.raises(ValueError, match="n_mfcc: expected 1 to 80, the mel bands, received 81"):
        MFCC(81)
