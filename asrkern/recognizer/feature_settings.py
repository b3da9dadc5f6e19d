"""The features that a model reads. They are recorded in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pydantic
from torch import Tensor

from asrkern.data import MFCC, LogMelSpectrogram, Spectrogram
from asrkern.recognizer._settings import Settings

_WINDOW_SECONDS = {"spectrogram": 0.02, "log_mel": 0.025, "mfcc": 0.025}


class FeatureSettings(Settings):
    """Features of an utterance.

    Attributes:
        kind: "spectrogram", "log_mel" or "mfcc" (:class:`asrkern.data.Spectrogram`,
            :class:`~asrkern.data.LogMelSpectrogram`, :class:`~asrkern.data.MFCC`); or "stored", for those that the
            manifest names (``features_filepath``).
        sample_rate: in Hz; audio of other rates is resampled.
        bins: mel bands of "log_mel" (None: 80), coefficients of "mfcc" (None: 28) or of "stored" (required). A
            "spectrogram" has as many as follow from its window: 161 at 16 kHz, 81 at 8 kHz.
        window_seconds: length of the window; None for 0.02 (spectrogram) or 0.025.
        hop_seconds: between frames.
        periodic: kind of the spectrogram's Hamming window.
        normalization: of "spectrogram": "utterance"; for streams "running" or a fixed (mean, std). See
            :class:`asrkern.data.Spectrogram`.
        cmvn: for "stored" features: normalise each bin to mean 0 and variance 1 over the utterance. All other kinds are
            always normalised.
    """

    kind: Literal["spectrogram", "log_mel", "mfcc", "stored"] = "spectrogram"
    sample_rate: int = pydantic.Field(16000, ge=1000, le=384_000)
    bins: int | None = pydantic.Field(None, ge=1)
    window_seconds: float | None = pydantic.Field(None, gt=0, le=10)
    hop_seconds: float = pydantic.Field(0.01, gt=0, le=10)
    periodic: bool = True
    normalization: Literal["utterance", "running"] | tuple[float, float] = "utterance"
    cmvn: bool = True

    @pydantic.model_validator(mode="after")
    def _check(self) -> FeatureSettings:
        if self.kind == "stored" and self.bins is None:
            raise ValueError("bins: expected the number of stored features per frame, received none")
        if self.kind == "spectrogram" and self.bins is not None:
            raise ValueError("bins: expected none, since the window sets a spectrogram's bins")
        if self.kind != "spectrogram" and self.normalization != "utterance":
            raise ValueError(f'normalization: expected "utterance" for {self.kind}')
        if self.kind != "stored" and round(self.sample_rate * min(self.window, self.hop_seconds)) < 1:
            raise ValueError("hop_seconds, window_seconds: expected one sample or more")
        return self

    @property
    def n_features(self) -> int:
        """Features per frame."""
        if self.kind == "spectrogram":
            return round(self.sample_rate * self.window) // 2 + 1
        return self.bins or {"log_mel": 80, "mfcc": 28}[self.kind]

    @property
    def window(self) -> float:
        """Length of the window in seconds."""
        return self.window_seconds or _WINDOW_SECONDS[self.kind]

    def frames(self, seconds: float) -> int:
        """How many frames an utterance of ``seconds`` has; for stored features give or take a frame or two."""
        if self.kind == "stored":
            return round(seconds / self.hop_seconds)
        return round(seconds * self.sample_rate) // round(self.sample_rate * self.hop_seconds) + 1

    def make(self) -> Callable[[Tensor], Tensor]:
        """The transform: samples [samples] (or stored features [bins, frames]) → [n_features, frames]."""
        if self.kind == "stored":
            return self._stored
        timing = (self.sample_rate, self.window, self.hop_seconds)
        if self.kind == "spectrogram":
            return Spectrogram(*timing, periodic=self.periodic, normalization=self.normalization)
        if self.kind == "log_mel":
            return LogMelSpectrogram(self.n_features, *timing)
        return MFCC(self.n_features, max(80, self.n_features), *timing)

    def _stored(self, features: Tensor) -> Tensor:
        if features.shape[0] != self.n_features:
            raise ValueError(
                f"bins: expected {self.n_features} stored features per frame, received {features.shape[0]}"
            )
        if not self.cmvn:
            return features
        std = features.std(1, correction=0, keepdim=True).clamp(min=1e-5)
        return (features - features.mean(1, keepdim=True)) / std
