"""Spectrograms of one utterance at a time, normalised, and padded batches of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from asrkern.data.mel import dct_matrix, mel_filters


def check_samples(samples: Tensor) -> None:
    """Raise TypeError or ValueError unless samples is one channel of floating point."""
    if not isinstance(samples, Tensor):
        raise TypeError(f"samples: expected a Tensor, received {type(samples).__name__}")
    if samples.dim() != 1 or not samples.is_floating_point():
        raise ValueError(
            "samples: expected floating point of shape [samples], "
            f"received {samples.dtype} of shape {list(samples.shape)}"
        )


class _UtteranceSpectrum(torch.nn.Module):
    """Short-time Fourier transform of one utterance, put on a logarithmic scale and normalised; has no weights.

    Hamming windows are centred on multiples of the hop; the signal is reflected at both ends. It takes one utterance at
    a time, so that its features cannot depend on what it is batched with.
    """

    window: Tensor

    # The log-magnitude of 16-bit audio varies more than this even at one quantisation step. Only silence is below, for
    # which deepspeech.pytorch divides by zero.
    minimum_std = 1e-5

    # Frames that are transformed at once: an hour's transform takes gigabytes.
    piece_frames = 4096

    def __init__(
        self,
        sample_rate: int,
        window_seconds: float,
        hop_seconds: float,
        n_fft: int | None,
        periodic: bool,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.window_samples = round(sample_rate * window_seconds)
        self.hop_samples = round(sample_rate * hop_seconds)
        if self.window_samples < 2 or self.hop_samples < 1:
            raise ValueError(
                "window_seconds, hop_seconds: expected at least 2 and 1 samples, "
                f"received {self.window_samples} and {self.hop_samples} at {sample_rate} Hz"
            )
        self.n_fft = self.window_samples if n_fft is None else n_fft
        if self.n_fft < self.window_samples:
            raise ValueError(f"n_fft: expected at least the window's {self.window_samples}, received {n_fft}")
        window = torch.hamming_window(self.window_samples, periodic=periodic, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)

    @property
    def bins(self) -> int:
        """Features per frame."""
        raise NotImplementedError

    def _scaled(self, magnitude: Tensor) -> Tensor:
        """The magnitude of the transform [n_fft // 2 + 1, frames] on the feature's own scale [bins, frames]."""
        raise NotImplementedError

    def forward(self, samples: Tensor) -> Tensor:
        """Features of one utterance.

        Args:
            samples: ``[samples]`` floating point at ``sample_rate``, more than half of ``n_fft`` long.

        Returns:
            ``[bins, frames]`` float32 with ``frames = samples // hop_samples + 1``; zeros for silence.

        Raises:
            TypeError: samples are no tensor.
            ValueError: samples of another shape or dtype, or too few of them.
        """
        check_samples(samples)
        if len(samples) <= self.n_fft // 2:
            raise ValueError(
                f"samples: expected more than half a window ({self.n_fft // 2} samples), "
                f"received {len(samples)}"
            )
        return self._normalised(self.spectrum(samples))

    def spectrum(self, samples: Tensor, *, reflect: bool = True) -> Tensor:
        """Features before their normalisation.

        Args:
            samples: [samples].
            reflect: put half a window of the signal's reflection before its start and after its end.

        Returns:
            [bins, frames] float32.
        """
        half = self.n_fft // 2 if reflect else 0
        frames = (len(samples) + 2 * half - self.n_fft) // self.hop_samples + 1
        features = torch.empty(self.bins, frames, dtype=torch.float32, device=samples.device)
        for first in range(0, frames, self.piece_frames):
            last = min(frames, first + self.piece_frames)
            begin = first * self.hop_samples - half
            piece = _reflected(samples, begin, begin + (last - first - 1) * self.hop_samples + self.n_fft)
            transform = torch.stft(
                piece.float(),
                self.n_fft,
                self.hop_samples,
                self.window_samples,
                window=self.window,
                center=False,
                return_complex=True,
            )
            features[:, first:last] = self._scaled(transform.abs())
        return features

    def _normalised(self, features: Tensor) -> Tensor:
        """[bins, frames] without the utterance's mean, divided by its (unbiased) standard deviation."""
        return _standardised(features, features.mean(), features.std().clamp(min=self.minimum_std))


def _reflected(samples: Tensor, begin: int, end: int) -> Tensor:
    """Samples begin to end of a signal that is reflected before its start and after its end."""
    parts = [samples[max(0, begin) : end]]
    if begin < 0:
        parts.insert(0, samples[1 : 1 - begin].flip(0))
    if end > len(samples):
        parts.append(samples[2 * len(samples) - 1 - end : len(samples) - 1].flip(0))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _standardised(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(features − mean) / std; in place where no gradients are wanted, since an hour's features are large."""
    if features.requires_grad:
        return (features - mean) / std
    return features.sub_(mean).div_(std)


def _check_normalization(value: object) -> str | tuple[float, float]:
    if value in ("utterance", "running"):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        mean, std = map(float, value)
        if math.isfinite(mean) and 0 < std < math.inf:
            return mean, std
    raise ValueError(
        f'normalization: expected "utterance", "running" or a (mean, standard deviation), received {value!r}'
    )


class Spectrogram(_UtteranceSpectrum):
    """Normalised log-magnitude spectrogram of one utterance, as the deepspeech.pytorch line computes it.

    20 ms Hamming windows every 10 ms, centred on multiples of the hop, with the signal reflected at both ends;
    magnitude of the DFT; log(1 + x); minus the utterance's mean, divided by its (unbiased) standard deviation. At 16
    kHz: 161 bins, ``samples // 160 + 1`` frames.

    deepspeech.pytorch computes it by ``librosa.stft``, which reflects up to librosa 0.8 (later versions pad with
    zeros). Version 3 passes the window's name, which makes a periodic window. Versions 1 and 2, and MLPerf's copy, pass
    the function ``scipy.signal.hamming``, which makes a symmetric one: use ``periodic=False`` for their checkpoints.

    Args:
        sample_rate: in Hz.
        window_seconds, hop_seconds: window length (also the DFT's) and hop.
        periodic: the kind of Hamming window, see above.
        normalization: "utterance", as above. Or, for streams, without later frames: "running", by the mean and standard
            deviation of all frames up to each one; or a fixed (mean, standard deviation), (0, 1) for none.

    Raises:
        ValueError: a window or hop without samples, or another normalization.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_seconds: float = 0.02,
        hop_seconds: float = 0.01,
        *,
        periodic: bool = True,
        normalization: str | tuple[float, float] = "utterance",
    ) -> None:
        super().__init__(sample_rate, window_seconds, hop_seconds, None, periodic)
        self.normalization = _check_normalization(normalization)

    @property
    def bins(self) -> int:
        """window_samples // 2 + 1, the frequency bins of the output."""
        return self.n_fft // 2 + 1

    def _scaled(self, magnitude: Tensor) -> Tensor:
        return magnitude.log1p()

    def _normalised(self, features: Tensor) -> Tensor:
        if self.normalization == "utterance":
            return super()._normalised(features)
        sums = None
        for first in range(0, features.shape[1], self.piece_frames):
            piece = features[:, first : first + self.piece_frames]
            features[:, first : first + self.piece_frames], sums = self.normalised_after(sums, piece)
        return features

    def normalised_after(self, sums: Tensor | None, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Frames that follow others, normalised without looking ahead.

        Args:
            sums: what this returned for the frames before; None at the start.
            features: [bins, frames], not normalised.

        [bins, frames], the same bits however the frames are cut; and the sums after them, None unless normalization is
            "running": number, sum and sum of squares of all values, float64.

        Raises:
            ValueError: normalization is "utterance".
        """
        if self.normalization == "utterance":
            raise ValueError(
                'normalization: expected "running" or a fixed (mean, standard deviation), received "utterance", '
                "which is known at the utterance's end only"
            )
        if not isinstance(self.normalization, str):
            mean, std = self.normalization
            return (features - mean) / std, None
        x = features.double().t()
        # cumsum adds in order. sum() adds in an order that depends on the shape.
        of_frames = torch.stack([torch.ones_like(x), x, x.square()], -1).cumsum(1)[:, -1]  # [frames, 3]
        if sums is not None:
            of_frames = torch.cat([sums[None], of_frames])
        count, total, squares = running = of_frames.cumsum(0)[0 if sums is None else 1 :].t()
        mean = total / count
        variance = (squares - total * mean) / (count - 1)
        std = variance.clamp(min=self.minimum_std**2).sqrt()
        last = running[:, -1].clone() if len(x) else sums
        return ((x - mean[:, None]) / std[:, None]).t().to(features.dtype), last


class LogMelSpectrogram(_UtteranceSpectrum):
    """Normalised log-mel spectrogram of one utterance.

    Hamming windows, power of the DFT, triangular filters of equal area on Slaney's mel scale from 0 Hz to half
    the sample rate (librosa's default), log(x + 2⁻²⁴), minus the utterance's mean, divided by its (unbiased)
    standard deviation. The defaults are 25 ms every 10 ms and, at 16 kHz, a DFT of 400 samples.

    Args:
        n_mels: mel bands.
        sample_rate: in Hz.
        window_seconds, hop_seconds: window length and hop.
        n_fft: samples of the DFT, with the window in their middle; None for the window's own length.

    Raises:
        ValueError: a window or hop without samples, an n_fft below the window, or more bands than the DFT's
            bins can fill.
    """

    filters: Tensor

    # Added to the power: far below one quantisation step of 16 bits, it keeps digital silence finite.
    log_guard = 2.0**-24

    def __init__(
        self,
        n_mels: int = 80,
        sample_rate: int = 16000,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.01,
        *,
        n_fft: int | None = None,
    ) -> None:
        super().__init__(sample_rate, window_seconds, hop_seconds, n_fft, True)
        bins = self.n_fft // 2 + 1
        if not 0 < n_mels <= bins:
            raise ValueError(f"n_mels: expected 1 to {bins}, the bins of n_fft, received {n_mels}")
        self.register_buffer("filters", mel_filters(n_mels, bins, sample_rate), persistent=False)

    @property
    def bins(self) -> int:
        """Mel bands."""
        return self.filters.shape[0]

    def _scaled(self, magnitude: Tensor) -> Tensor:
        # log(x + guard) but for a constant, which subtracting the mean removes; exactly 0 for silence.
        return (self.filters @ magnitude.square() / self.log_guard).log1p()


class MFCC(LogMelSpectrogram):
    """Mel-frequency cepstral coefficients of one utterance, each with mean 0 and variance 1 over its frames.

    The orthonormal DCT-II of :class:`LogMelSpectrogram`'s bands (not normalised), the lowest coefficients first; minus
    each coefficient's mean, divided by its standard deviation over the utterance (divisor: the number of frames). The
    HW4P2 line normalises so. How its 28 coefficients were made is not known.

    Args:
        n_mfcc: coefficients.
        n_mels, sample_rate, window_seconds, hop_seconds, n_fft: as in :class:`LogMelSpectrogram`.

    Raises:
        ValueError: as LogMelSpectrogram, or more coefficients than bands.
    """

    dct: Tensor

    def __init__(
        self,
        n_mfcc: int = 28,
        n_mels: int = 80,
        sample_rate: int = 16000,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.01,
        *,
        n_fft: int | None = None,
    ) -> None:
        super().__init__(n_mels, sample_rate, window_seconds, hop_seconds, n_fft=n_fft)
        if not 0 < n_mfcc <= n_mels:
            raise ValueError(f"n_mfcc: expected 1 to {n_mels}, the mel bands, received {n_mfcc}")
        self.register_buffer("dct", dct_matrix(n_mfcc, n_mels), persistent=False)

    @property
    def bins(self) -> int:
        """Coefficients."""
        return self.dct.shape[0]

    def _scaled(self, magnitude: Tensor) -> Tensor:
        return self.dct @ super()._scaled(magnitude)

    def _normalised(self, features: Tensor) -> Tensor:
        std = features.std(1, correction=0, keepdim=True).clamp(min=self.minimum_std)
        return _standardised(features, features.mean(1, keepdim=True), std)


def collate(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad utterances with zeros to one batch, in the given order.

    Args:
        features: one ``[bins, frames]`` tensor per utterance, the same number of bins in each.

    Returns:
        The batch ``[N, 1, bins, max frames]`` and the lengths ``[N]`` in frames, int64 on the CPU.

    Raises:
        ValueError: no utterance, or different shapes.
    """
    if not features:
        raise ValueError("features: expected at least one utterance, received none")
    for i, x in enumerate(features):
        if x.dim() != 2 or x.shape[0] != features[0].shape[0]:
            raise ValueError(
                f"features[{i}]: expected shape [{features[0].shape[0]}, frames], received {list(x.shape)}"
            )
    lengths = torch.tensor([x.shape[1] for x in features])
    batch = features[0].new_zeros(len(features), 1, features[0].shape[0], int(lengths.max()))
    for row, x in zip(batch, features):
        row[0, :, : x.shape[1]] = x
    return batch, lengths
