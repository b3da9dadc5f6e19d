"""Features and resampling of real speech against torchaudio's."""

import torch

from asrkern.data import Fbank, Spectrogram, load_audio, read_manifest, resample


def speech(data_dir):
    utterance = read_manifest(data_dir / "grid" / "dev.jsonl")[0]
    return load_audio(utterance.audio_path)


def test_spectrogram_of_speech_is_torchaudios(torchaudio, data_dir):
    import torchaudio.functional as F

    x = speech(data_dir)
    magnitude = F.spectrogram(x, 0, torch.hamming_window(320), 320, 160, 320, power=1.0, normalized=False)
    log = magnitude.log1p()
    torch.testing.assert_close(Spectrogram()(x), (log - log.mean()) / log.std(), atol=1e-4, rtol=0)


def test_resampled_speech_is_torchaudios_within_the_passband(torchaudio, data_dir):
    import torchaudio.functional as F

    x = speech(data_dir)
    ours = resample(x, 16000, 8000)
    theirs = F.resample(x, 16000, 8000, lowpass_filter_width=64, rolloff=0.95)
    # Their transition bands differ: compare below 3.4 kHz, of speech away from the ends.
    spectra = [torch.fft.rfft(y[1000:-1000] * torch.hann_window(len(y) - 2000)) for y in (ours, theirs)]
    below = int(len(spectra[0]) * 3400 / 4000)
    difference = (spectra[0] - spectra[1])[:below].norm() / spectra[1][:below].norm()
    assert difference < 1e-3


def test_fbank_of_speech_is_torchaudios(torchaudio, data_dir):
    import torchaudio.compliance.kaldi as kaldi

    x = speech(data_dir)
    options = {"snip_edges": False, "dither": 0.0, "low_freq": 20.0, "high_freq": -400.0}
    expected = kaldi.fbank(x[None], num_mel_bins=80, **options).t()
    torch.testing.assert_close(Fbank()(x), expected, atol=2e-3, rtol=0)
