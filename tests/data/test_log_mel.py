"""asrkern.data.LogMelSpectrogram against filters and a DFT written out, and against torchaudio on speech."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

from asrkern.data import LogMelSpectrogram, load_audio, read_manifest


def slaney_filters(n_mels: int, n_fft: int) -> numpy.ndarray:
    """[n_mels, n_fft // 2 + 1] at 16 kHz: triangles of equal area, linear in mel below 1 kHz, logarithmic above."""

    def hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    highest = 15 + 27 * math.log(8) / math.log(6.4)
    edges = [hertz(i * highest / (n_mels + 1)) for i in range(n_mels + 2)]
    filters = numpy.zeros((n_mels, n_fft // 2 + 1))
    for band, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:])):
        for k in range(n_fft // 2 + 1):
            f = k * 16000 / n_fft
            height = min((f - low) / (centre - low), (high - f) / (high - centre))
            filters[band, k] = max(0.0, height) * 2 / (high - low)
    return filters


def log_mel_by_definition(samples: torch.Tensor, n_mels: int, n_fft: int) -> torch.Tensor:
    """Features at 16 kHz in float64."""
    x = numpy.pad(samples.double().numpy(), n_fft // 2, mode="reflect")
    window = numpy.zeros(n_fft)
    start = (n_fft - 400) // 2
    window[start : start + 400] = 0.54 - 0.46 * numpy.cos(2 * math.pi * numpy.arange(400) / 400)
    dft = numpy.exp(-2j * math.pi * numpy.outer(numpy.arange(n_fft // 2 + 1), numpy.arange(n_fft)) / n_fft)
    frames = numpy.stack([x[s : s + n_fft] * window for s in range(0, len(samples) + 1, 160)], 1)
    features = numpy.log(slaney_filters(n_mels, n_fft) @ numpy.abs(dft @ frames) ** 2 + 2.0**-24)
    return torch.from_numpy((features - features.mean()) / features.std(ddof=1))


@pytest.mark.parametrize(("n_mels", "n_fft"), [(80, None), (128, None), (80, 512), (23, 400)])
@pytest.mark.parametrize("samples", [257, 5003])
def test_matches_the_definition(n_mels, n_fft, samples):
    x = 0.3 * torch.randn(samples)
    log_mel = LogMelSpectrogram(n_mels, n_fft=n_fft)
    y = log_mel(x)
    assert y.shape == (log_mel.bins, samples // 160 + 1) == (n_mels, samples // 160 + 1)
    expected = log_mel_by_definition(x, n_mels, n_fft or 400)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=2e-4)


def test_log_mel_of_speech_is_torchaudios(data_dir, torchaudio):
    T = torchaudio.transforms

    x = load_audio(read_manifest(data_dir / "grid" / "dev.jsonl")[0].audio_path)
    mel = T.MelSpectrogram(
        16000,
        400,
        hop_length=160,
        n_mels=80,
        window_fn=torch.hamming_window,
        norm="slaney",
        mel_scale="slaney",
    )(x)
    log = (mel + 2**-24).log()
    torch.testing.assert_close(LogMelSpectrogram()(x), (log - log.mean()) / log.std(), atol=1e-4, rtol=0)


def test_silence_is_zero_and_the_quietest_sound_is_not_flattened():
    assert torch.equal(LogMelSpectrogram()(torch.zeros(1600)), torch.zeros(80, 11))
    quietest = torch.zeros(16000)
    quietest[::7] = 2**-15
    assert abs(LogMelSpectrogram()(quietest).std() - 1) < 1e-5


def test_log_mel_has_no_state():
    assert LogMelSpectrogram().state_dict() == {}


def test_unusable_options_are_refused():
    with pytest.raises(ValueError, match="n_mels: expected 1 to 201, the bins of n_fft, received 202"):
        LogMelSpectrogram(202)
    with pytest.raises(ValueError, match="n_fft: expected at least the window's 400, received 399"):
        LogMelSpectrogram(n_fft=399)
    with pytest.raises(ValueError, match=r"more than half a window \(256 samples\), received 256"):
        LogMelSpectrogram(n_fft=512)(torch.zeros(256))
