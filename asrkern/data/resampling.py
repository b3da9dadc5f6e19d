"""Resampling by libsoxr, of whole signals and of signals that arrive in pieces."""

from __future__ import annotations

from typing import Any

import soxr
import torch
from torch import Tensor

from asrkern.data.features import check_samples

# libsoxr's memory and time grow with the ratio, and it crashes where memory ends. No sound needs a larger ratio.
_MOST_RATIO = 1024


class Resampler:
    """Band-limited resampling of one signal in pieces, by libsoxr in its quality "HQ".

    Its phase is linear. It is flat within 0.01 dB up to 0.91 of the lower of the two Nyquist frequencies, and 130 dB
    down from that frequency on. Output sample n is the signal at time n / new_rate; the signal is silent before its
    start and after its end. The samples returned are together bit for bit the same, however the signal is cut. They
    come 40 ms (from 48 to 16 kHz) to 115 ms (from 8 to 16 kHz) after the signal.

    Args:
        original_rate, new_rate: in Hz.
        dtype: floating point, of the signal.

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
        self._stream: Any = None
        if original_rate != new_rate:
            self._stream = soxr.ResampleStream(original_rate, new_rate, 1, dtype=name, quality="HQ")

    def __call__(self, samples: Tensor) -> Tensor:
        """Take the next piece of the signal.

        Args:
            samples: [samples], of the resampler's dtype.

        Returns:
            What is known of the result, [samples]; perhaps nothing.
        """
        if self._stream is None:
            return samples
        self._read += len(samples)
        return self._next(samples.to(self._dtype)).to(samples)

    def finish(self) -> Tensor:
        """The rest of the result, which has ceil(samples · new_rate / original_rate) samples in all."""
        if self._stream is None:
            return torch.empty(0)
        original, new = self._rates
        left = -(-self._read * new // original) - self._written
        # libsoxr rounds the length. With so much silence at the end its result is longer than that, and is cut.
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
