"""Log-mel filterbank energies as Kaldi computes them, in the variants that models of several projects read."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asrkern.data.features import check_samples
from asrkern.data.mel import htk_mel_filters, mel_filters

# Kaldi's smallest energy: FLT_EPSILON.
_FLOOR = torch.finfo(torch.float32).eps


class FbankConvention(NamedTuple):
    """What differs between projects.

    scale: samples in [-1, 1] are multiplied by it. low_hertz, high_hertz: edges of the mel bands; high_hertz at most 0
    counts from half the sample rate. slaney: Slaney's mel scale and triangles of equal area, else HTK's scale and
    triangles of equal height. povey: Povey's window, else Hann's. remove_mean: subtract each frame's mean. preemphasis:
    its coefficient. power_of_two: the DFT's length is the next power of two, else the window's.
    """

    scale: float = 1.0
    low_hertz: float = 20.0
    high_hertz: float = -400.0
    slaney: bool = False
    povey: bool = True
    remove_mean: bool = True
    preemphasis: float = 0.97
    power_of_two: bool = True

    def fft_size(self, window_samples: int) -> int:
        """The DFT's length in samples."""
        return 1 << (window_samples - 1).bit_length() if self.power_of_two else window_samples


CONVENTIONS = {
    "icefall": FbankConvention(),
    # wenet's models are trained on samples of 16 bits.
    "wenet": FbankConvention(scale=32768.0),
    "nemo": FbankConvention(low_hertz=0.0, high_hertz=0.0, slaney=True, povey=False, remove_mean=False),
    "gigaam": FbankConvention(
        low_hertz=0.0, high_hertz=0.0, povey=False, remove_mean=False, preemphasis=0.0, power_of_two=False
    ),
}


class Fbank(torch.nn.Module):
    """Log-mel filterbank energies of one utterance, as Kaldi computes them, without dither; has no weights.

    Frame t is centred on (t + 1/2) · hop; the signal is reflected at both ends. Of each frame: its mean subtracted,
    pre-emphasis, window, power of the DFT, mel bands, logarithm of at least 2⁻²³. The conventions are those by which
    sherpa-onnx reads models of icefall, wenet, NeMo and GigaAM.

    Args:
        n_mels: mel bands.
        convention: "icefall", "wenet", "nemo" or "gigaam".
        sample_rate: in Hz.
        window_seconds, hop_seconds: window length and hop.
        cmvn: normalise each band to mean 0 and variance 1 over the utterance (NeMo's ``per_feature``).

    Raises:
        ValueError: another convention, a window or hop without samples, or no mel bands.
    """

    window: Tensor
    filters: Tensor

    # Frames that are transformed at once: an hour's transform takes gigabytes.
    piece_frames = 4096

    def __init__(
        self,
        n_mels: int = 80,
        convention: str = "icefall",
        sample_rate: int = 16000,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.01,
        *,
        cmvn: bool = False,
    ) -> None:
        super().__init__()
        if convention not in CONVENTIONS:
            raise ValueError(f"convention: expected one of {', '.join(CONVENTIONS)}, received {convention!r}")
        self.convention, self.cmvn = CONVENTIONS[convention], cmvn
        self.window_samples = round(sample_rate * window_seconds)
        self.hop_samples = round(sample_rate * hop_seconds)
        if self.window_samples < 2 or self.hop_samples < 1:
            raise ValueError(
                "window_seconds, hop_seconds: expected at least 2 and 1 samples, "
                f"received {self.window_samples} and {self.hop_samples} at {sample_rate} Hz"
            )
        self.n_fft = self.convention.fft_size(self.window_samples)
        if not 0 < n_mels <= self.n_fft // 2 + 1:
            raise ValueError(f"n_mels: expected 1 to {self.n_fft // 2 + 1}, received {n_mels}")
        # Kaldi's windows are symmetric. sherpa-onnx gives models of NeMo and GigaAM a periodic one.
        window = torch.hann_window(
            self.window_samples, periodic=not self.convention.povey, dtype=torch.float64
        )
        if self.convention.povey:
            window = window.pow(0.85)
        self.register_buffer("window", window.float(), persistent=False)
        bins = self.n_fft // 2 + 1
        if self.convention.slaney:
            filters = mel_filters(n_mels, bins, sample_rate)
        else:
            high = self.convention.high_hertz
            high = high if high > 0 else sample_rate / 2 + high
            filters = htk_mel_filters(n_mels, bins, sample_rate, self.convention.low_hertz, high)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Features of one utterance.

        Args:
            samples: [samples] floating point in [-1, 1], at ``sample_rate``.

        Returns:
            [n_mels, frames] float32 with ``frames = (samples + hop // 2) // hop``.

        Raises:
            TypeError: samples are no tensor.
            ValueError: samples of another shape or dtype, or too few for a frame.
        """
        check_samples(samples)
        frames = frames_of(len(samples), self.hop_samples)
        if frames < 1:
            raise ValueError(
                f"samples: expected at least {self.hop_samples - self.hop_samples // 2}, half a hop, "
                f"received {len(samples)}"
            )
        features = torch.empty(self.filters.shape[0], frames, device=samples.device)
        for first in range(0, frames, self.piece_frames):
            last = min(frames, first + self.piece_frames)
            features[:, first:last] = self._energies(self._cut(samples, first, last))
        if self.cmvn:
            std = features.std(1, correction=0, keepdim=True)
            features.sub_(features.mean(1, keepdim=True)).div_(std + 1e-5)
        return features

    def _cut(self, samples: Tensor, first: int, last: int) -> Tensor:
        """Frames [last - first, window] of the signal, which is reflected with its last sample doubled."""
        begin = self.hop_samples // 2 - self.window_samples // 2
        starts = begin + self.hop_samples * torch.arange(first, last, device=samples.device)
        places = starts[:, None] + torch.arange(self.window_samples, device=samples.device)
        places = places.remainder(2 * len(samples))
        return samples.float()[torch.where(places < len(samples), places, 2 * len(samples) - 1 - places)]

    def _energies(self, frames: Tensor) -> Tensor:
        x = frames * self.convention.scale
        if self.convention.remove_mean:
            x = x - x.mean(1, keepdim=True)
        # Kaldi takes the first sample for its own predecessor.
        x = x - self.convention.preemphasis * torch.cat([x[:, :1], x[:, :-1]], 1)
        power = torch.fft.rfft(x * self.window, self.n_fft).abs().square()
        return (self.filters @ power.t()).clamp(min=_FLOOR).log()


def frames_of(samples: int, hop_samples: int) -> int:
    """How many frames :class:`Fbank` makes of so many samples."""
    return (samples + hop_samples // 2) // hop_samples
