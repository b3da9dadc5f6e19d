"""Resampling, of whole signals and of signals that come in pieces, by libsoxr."""

from __future__ import annotations

import soxr
import torch
from torch import Tensor

from asrkern.data.features import check_samples

# libsoxr's memory and time grow with the ratio; no sound needs more, and where memory ends libsoxr crashes.
_MOST_RATIO = 1024


class Resampler:
    """Band-limited resampling of one signal in pieces, by libsoxr in its quality "HQ".

    With linear phase; flat within 0.01 dB up to 0.91 of the lower of the two Nyquist frequencies, 130 dB down from that
    frequency on. Output sample n is the signal at time n / new_rate, with silence assumed before and after the signal.
    However the signal is cut, the samples returned are together bit for bit the same. They come 40 ms (from 48 to 16
    kHz) to 115 ms (from 8 to 16 kHz) after the signal.

    Args:
        original_rate, new_rate: in Hz.
        dtype: of the signal.

    Raises:
        ValueError: a rate that is not positive, or one more than 1024 times the other.
    """

    def __init__(self, original_rate: int, new_rate: int, dtype: torch.dtype = torch.float32) -> None:
        if original_rate < 1 or new_rate < 1:
            raise ValueError(
                f"original_rate, new_rate: expected positive Hz, received {original_rate}, {new_rate}"
            )
        if max(original_rate, new_rate) > _MOST_RATIO * min(original_rate, new_rate):
            raise ValueError(
                f"original_rate, new_rate: expected a ratio of at most {_MOST_RATIO}, "
                f"received {original_rate}, {new_rate}"
            )
        self._rates = original_rate, new_rate
        self._read = self._written = 0
        self._dtype = dtype if dtype == torch.float64 else torch.float32
        name = str(self._dtype).removeprefix("torch.")
        self._stream = None
        if original_rate != new_rate:
            self._stream = soxr.ResampleStream(original_rate, new_rate, 1, dtype=name, quality="HQ")

    def __call__(self, samples: Tensor) -> Tensor:
        """The next piece of the signal, [samples]; returns what of the result is known, perhaps nothing."""
        if self._stream is None:
            return samples
        self._read += len(samples)
        return self._next(samples.to(self._dtype)).to(samples)

    def finish(self) -> Tensor:
        """The rest of the result, whose length is altogether ceil(samples · new_rate / original_rate)."""
        if self._stream is None:
            return torch.empty(0)
        original, new = self._rates
        left = -(-self._read * new // original) - self._written
        # libsoxr rounds the length; so much silence makes it longer than that.
        silence = torch.zeros(2 * -(-original // new), dtype=self._dtype)
        return self._next(silence, last=True)[:left]

    def _next(self, samples: Tensor, last: bool = False) -> Tensor:
        array = samples.contiguous().numpy(force=True)
        output = torch.from_numpy(self._stream.resample_chunk(array, last=last))
        self._written += len(output)
        return output


def resample(samples: Tensor, original_rate: int, new_rate: int) -> Tensor:
    """A signal at another rate: see :class:`Resampler` for how.

    Args:
        samples: ``[samples]``, floating point; 16-bit ones are computed in float32. No gradients flow through.
        original_rate: its rate in Hz, any positive integer.
        new_rate: rate of the result in Hz.

    Returns:
        ``[ceil(samples * new_rate / original_rate)]``, same dtype and device.

    Raises:
        ValueError: a rate that is not positive, or one more than 1024 times the other, or samples that are not
            one-dimensional floating point.
    """
    check_samples(samples)
    resampler = Resampler(original_rate, new_rate, samples.dtype)
    if original_rate == new_rate or not len(samples):
        return samples
    return torch.cat([resampler(samples), resampler.finish().to(samples)])
