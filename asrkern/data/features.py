"""Linear spectrograms as the deepspeech.pytorch line computes them, and padded batches of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Spectrogram(torch.nn.Module):
    """Normalised log-magnitude spectrogram of one utterance; has no weights.

    20 ms Hamming windows every 10 ms, centred on multiples of the hop with the signal reflected at both
    ends, magnitude of the DFT, log(1 + x), minus the utterance's mean, divided by its (unbiased) standard
    deviation. At 16 kHz: 161 bins, ``samples // 160 + 1`` frames. Always one utterance at a time, so that
    its features cannot depend on what it is batched with.

    The line computes this by ``librosa.stft``, which reflected up to librosa 0.8 (later ones pad with zeros).
    deepspeech.pytorch 3 passes it the window's name, which makes a periodic window; versions 1 and 2, and
    MLPerf's copy, pass the function ``scipy.signal.hamming``, which makes a symmetric one: choose
    ``periodic=False`` for their checkpoints.

    Args:
        sample_rate: in Hz.
        window_seconds, hop_seconds: window length (also the DFT's) and hop.
        periodic: the kind of Hamming window, see above.
    """

    window: Tensor

    # The log-magnitude of 16-bit audio varies more than this even at one quantisation step; only
    # silence falls below, where the line divides by zero.
    minimum_std = 1e-5

    def __init__(
        self,
        sample_rate: int = 16000,
        window_seconds: float = 0.02,
        hop_seconds: float = 0.01,
        *,
        periodic: bool = True,
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
        window = torch.hamming_window(self.window_samples, periodic=periodic, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)

    @property
    def bins(self) -> int:
        """Frequency bins of the output: window_samples // 2 + 1."""
        return self.window_samples // 2 + 1

    def forward(self, samples: Tensor) -> Tensor:
        """Features of one utterance.

        Args:
            samples: ``[samples]`` floating point at ``sample_rate``, more than half a window long.

        Returns:
            ``[bins, frames]`` float32 with ``frames = samples // hop_samples + 1``; zeros for silence.

        Raises:
            ValueError: samples of another shape or dtype, or too few of them.
        """
        if samples.dim() != 1 or not samples.is_floating_point():
            raise ValueError(
                "samples: expected floating point of shape [samples], "
                f"received {samples.dtype} of shape {list(samples.shape)}"
            )
        if len(samples) <= self.window_samples // 2:
            raise ValueError(
                f"samples: expected more than half a window ({self.window_samples // 2} samples), "
                f"received {len(samples)}"
            )
        spectrum = torch.stft(
            samples.float(),
            self.window_samples,
            self.hop_samples,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        features = spectrum.abs().log1p()
        return (features - features.mean()) / features.std().clamp(min=self.minimum_std)


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
