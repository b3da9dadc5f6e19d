"""The features that a model reads. They are recorded in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pydantic
import torch
from torch import Tensor

from asrkern.data import MFCC, Fbank, LogMelSpectrogram, Spectrogram
from asrkern.data.fbank import CONVENTIONS, frames_of
from asrkern.data.features import check_samples
from asrkern.recognizer._settings import Settings

_WINDOW_SECONDS = {"spectrogram": 0.02, "log_mel": 0.025, "mfcc": 0.025, "fbank": 0.025}
_BINS = {"log_mel": 80, "mfcc": 28, "fbank": 80, "samples": 1}
# wav2vec 2.0's models add this to the variance of the samples.
_VARIANCE_GUARD = 1e-7


class FeatureSettings(Settings):
    """Features of an utterance.

    Attributes:
        kind: "spectrogram", "log_mel" or "mfcc" (:class:`asrkern.data.Spectrogram`,
            :class:`~asrkern.data.LogMelSpectrogram`, :class:`~asrkern.data.MFCC`); "fbank"
            (:class:`asrkern.data.Fbank`); "samples", the audio itself, whose frames are samples; or "stored", for those
            that the manifest names (``features_filepath``).
        sample_rate: in Hz; audio of other rates is resampled.
        bins: mel bands of "log_mel" and "fbank" (None: 80), coefficients of "mfcc" (None: 28) or of "stored"
            (required). A "spectrogram" has as many as follow from its window: 161 at 16 kHz, 81 at 8 kHz; "samples" have
            one.
        window_seconds: length of the window; None for 0.02 (spectrogram) or 0.025.
        hop_seconds: between frames; of "samples" 1 / sample_rate.
        periodic: kind of the spectrogram's Hamming window.
        normalization: of "spectrogram": "utterance"; for streams "running" or a fixed (mean, std). See
            :class:`asrkern.data.Spectrogram`.
        cmvn: for "stored", "fbank" and "samples": normalise each bin to mean 0 and variance 1 over the utterance. All
            other kinds are always normalised.
        convention: of "fbank": whose, see :class:`asrkern.data.Fbank`; None for all other kinds.
    """

    kind: Literal["spectrogram", "log_mel", "mfcc", "fbank", "samples", "stored"] = "spectrogram"
    sample_rate: int = pydantic.Field(default=16000, ge=1000, le=384_000)
    bins: int | None = pydantic.Field(default=None, ge=1)
    window_seconds: float | None = pydantic.Field(default=None, gt=0, le=10)
    hop_seconds: float = pydantic.Field(default=0.01, gt=0, le=10)
    periodic: bool = True
    normalization: Literal["utterance", "running"] | tuple[float, float] = "utterance"
    cmvn: bool = True
    convention: Literal["icefall", "wenet", "nemo", "gigaam"] | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> FeatureSettings:
        if self.kind == "stored" and self.bins is None:
            raise ValueError("bins: expected the number of stored features per frame, received none")
        if (self.kind == "fbank") != (self.convention is not None):
            raise ValueError('convention: expected one for "fbank", and none for other kinds')
        if self.kind == "samples":
            if self.bins not in (None, 1) or self.window_seconds is not None:
                raise ValueError("bins, window_seconds: expected none of samples")
            if round(self.hop_seconds * self.sample_rate) != 1:
                raise ValueError("hop_seconds: expected 1 / sample_rate of samples")
            return self
        if self.kind == "spectrogram" and self.bins is not None:
            raise ValueError("bins: expected none, since the window sets a spectrogram's bins")
        if self.kind != "spectrogram" and self.normalization != "utterance":
            raise ValueError(f'normalization: expected "utterance" for {self.kind}')
        if self.kind != "stored" and round(self.sample_rate * min(self.window, self.hop_seconds)) < 1:
            raise ValueError("hop_seconds, window_seconds: expected one sample or more")
        if self.kind in ("log_mel", "mfcc", "fbank") and self._bands > self._most_bands:
            raise ValueError(
                f"window_seconds: expected a window long enough for {self._bands} mel bands, received {self.window:g}, which "
                f"is for at most {self._most_bands} at {self.sample_rate} Hz"
            )
        return self

    @property
    def n_features(self) -> int:
        """Features per frame."""
        if self.kind == "spectrogram":
            return round(self.sample_rate * self.window) // 2 + 1
        return self.bins or _BINS[self.kind]

    @property
    def _bands(self) -> int:
        """Mel bands that the features are made of."""
        return max(_BINS["log_mel"], self.n_features) if self.kind == "mfcc" else self.n_features

    @property
    def _most_bands(self) -> int:
        """Bins of the DFT of a window."""
        samples = round(self.sample_rate * self.window)
        return (CONVENTIONS[self.convention].fft_size(samples) if self.convention else samples) // 2 + 1

    @property
    def window(self) -> float:
        """Length of the window in seconds."""
        return self.window_seconds or _WINDOW_SECONDS[self.kind]

    def frames(self, seconds: float) -> int:
        """How many frames an utterance of ``seconds`` has; for stored features give or take a frame or two."""
        if self.kind == "stored":
            return round(seconds / self.hop_seconds)
        samples, hop = round(seconds * self.sample_rate), round(self.sample_rate * self.hop_seconds)
        if self.kind == "samples":
            return samples
        return frames_of(samples, hop) if self.kind == "fbank" else samples // hop + 1

    @property
    def first_seconds(self) -> float:
        """Where the first frame is centred. The next ones follow at ``hop_seconds``."""
        return self.hop_seconds / 2 if self.kind == "fbank" else 0.0

    def make(self) -> Callable[[Tensor], Tensor]:
        """The transform: samples [samples] (or stored features [bins, frames]) → [n_features, frames]."""
        if self.kind in ("stored", "samples"):
            return self._stored if self.kind == "stored" else self._samples
        timing = (self.sample_rate, self.window, self.hop_seconds)
        if self.kind == "spectrogram":
            return Spectrogram(*timing, periodic=self.periodic, normalization=self.normalization)
        if self.kind == "log_mel":
            return LogMelSpectrogram(self.n_features, *timing)
        if self.kind == "fbank":
            return Fbank(self.n_features, str(self.convention), *timing, cmvn=self.cmvn)
        return MFCC(self.n_features, self._bands, *timing)

    def _samples(self, samples: Tensor) -> Tensor:
        check_samples(samples)
        if len(samples) < 1:
            raise ValueError("samples: expected at least one, received none")
        samples = samples.float()
        if self.cmvn:
            variance, mean = torch.var_mean(samples, correction=0)
            samples = (samples - mean) / (variance + _VARIANCE_GUARD).sqrt()
        return samples[None]

    def _stored(self, features: Tensor) -> Tensor:
        if features.shape[0] != self.n_features:
            raise ValueError(
                f"bins: expected {self.n_features} stored features per frame, received {features.shape[0]}"
            )
        if not self.cmvn:
            return features
        std = features.std(1, correction=0, keepdim=True).clamp(min=1e-5)
        return (features - features.mean(1, keepdim=True)) / std
