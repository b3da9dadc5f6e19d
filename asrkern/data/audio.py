"""Audio files as mono float32 at one sample rate."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator

import soundfile
import torch
from torch import Tensor

# Half width of the resampling filter in samples of the lower rate, its cutoff relative to the lower
# Nyquist frequency, and the Kaiser window's beta. Kaiser's formulas give 90 dB for beta 9 and a
# transition band of +-4.5 % of Nyquist for this width: flat to 0.91, stopped from 1.0 on.
_HALF_WIDTH = 64
_CUTOFF = 0.955
_KAISER_BETA = 9.0

_FILE_RATES_HZ = (1_000, 384_000)
_BLOCK_FRAMES = 1 << 16

# libsndfile shortens a cut-off WAV, AIFF, AU or Ogg file silently; only its log tells.
_SIZE_IN_LOG = re.compile(r"(?:RIFF|FORM|data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
_UNKNOWN_SIZES = (0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF)  # what streaming writers put in place of a size
_OGG_DAMAGE_IN_LOG = re.compile(r"Ogg\s*: (.*End-Of-Stream.*|Last page lacks .*|Junk after .*)")


def load_audio(
    path: str | os.PathLike[str],
    sample_rate: int = 16000,
    *,
    offset_seconds: float = 0.0,
    duration_seconds: float | None = None,
) -> Tensor:
    """Read an audio file (whatever libsndfile reads: WAV, FLAC, Ogg, MP3, ...) as mono float32.

    Channels are averaged and other rates are resampled by :func:`resample`. Integer samples are
    divided by 2**(bits - 1), so that full scale is 1 (deepspeech.pytorch divides by 32767 instead).

    Args:
        path: the file.
        sample_rate: rate of the result in Hz.
        offset_seconds: where to start in the file.
        duration_seconds: how much to read; to the end if None.

    Returns:
        ``[samples]`` float32 on the CPU, at least one sample.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, truncated, not audio, holds NaN or infinity, or ends before
            the requested part does.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"path: expected an audio file, received {os.fspath(path)!r}, which does not exist"
        )
    if not os.path.isfile(path):
        raise ValueError(f"path: expected a regular file, received {os.fspath(path)!r}")
    if not 0 <= offset_seconds < math.inf:
        raise ValueError(f"offset_seconds: expected >= 0, received {offset_seconds}")
    if duration_seconds is not None and not 0 < duration_seconds < math.inf:
        raise ValueError(f"duration_seconds: expected > 0 or None, received {duration_seconds}")
    try:
        # A descriptor rather than a name: soundfile would take a name ending in .raw for headerless PCM.
        with open(path, "rb") as handle, soundfile.SoundFile(handle.fileno(), closefd=False) as file:
            file_rate = file.samplerate
            samples = _read_mono(file, path, offset_seconds, duration_seconds)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"path: expected a complete audio file, received {os.fspath(path)!r}: {error.error_string}"
        ) from None
    if not samples.isfinite().all():
        raise ValueError(f"path: expected finite samples, received NaN or infinity in {os.fspath(path)!r}")
    return resample(samples, file_rate, sample_rate)


def _read_mono(
    file: soundfile.SoundFile,
    path: str | os.PathLike[str],
    offset_seconds: float,
    duration_seconds: float | None,
) -> Tensor:
    name, rate, log = os.fspath(path), file.samplerate, file.extra_info
    if not _FILE_RATES_HZ[0] <= rate <= _FILE_RATES_HZ[1]:
        raise ValueError(
            f"path: expected a rate of {_FILE_RATES_HZ[0]} to {_FILE_RATES_HZ[1]} Hz, "
            f"received {rate} Hz in {name!r}"
        )
    for declared, present in _SIZE_IN_LOG.findall(log):
        if int(declared) > int(present) and int(declared) not in _UNKNOWN_SIZES:
            raise ValueError(f"path: expected {declared} bytes, received {present}: {name!r} is truncated")
    if damage := _OGG_DAMAGE_IN_LOG.search(log):
        raise ValueError(f"path: expected a complete Ogg stream, received {name!r}: {damage[1]}")
    first = round(offset_seconds * rate)
    last = file.frames if duration_seconds is None else first + max(1, round(duration_seconds * rate))
    # Manifests round durations: half a millisecond at the end may be missing.
    tolerated = 0 if duration_seconds is None else math.ceil(0.0005 * rate)
    if file.frames == 0 or first >= file.frames or last - tolerated > file.frames:
        raise ValueError(
            f"path: expected at least {max(last, first + 1)} frames at {rate} Hz, "
            f"received {file.frames} in {name!r}"
        )
    expected = min(last, file.frames) - first
    file.seek(first)
    # In blocks: a header may claim more frames than memory could hold.
    blocks: list[Tensor] = []
    remaining = expected
    while remaining:
        block = file.read(min(remaining, _BLOCK_FRAMES), dtype="float32", always_2d=True)
        if not len(block):
            raise ValueError(
                f"path: expected {expected} frames, received {expected - remaining}: {name!r} is truncated"
            )
        blocks.append(torch.from_numpy(block).mean(1))
        remaining -= len(block)
    return torch.cat(blocks)


def resample(samples: Tensor, original_rate: int, new_rate: int) -> Tensor:
    """Band-limited resampling: a polyphase sinc filter under a Kaiser window.

    Flat to 0.91 of the lower of the two Nyquist frequencies and 90 dB down from that frequency on.
    Output sample n is the signal at time n / new_rate, with silence assumed outside the input; no delay is
    added.

    Args:
        samples: ``[samples]``, floating point.
        original_rate: its rate in Hz, any positive integer.
        new_rate: rate of the result in Hz.

    Returns:
        ``[ceil(samples * new_rate / original_rate)]``, same dtype and device.

    Raises:
        ValueError: a rate that is not positive, or samples that are not one-dimensional floating point.
    """
    if original_rate < 1 or new_rate < 1:
        raise ValueError(
            f"original_rate, new_rate: expected positive Hz, received {original_rate}, {new_rate}"
        )
    if samples.dim() != 1 or not samples.is_floating_point():
        raise ValueError(
            "samples: expected floating point of shape [samples], "
            f"received {samples.dtype} of shape {list(samples.shape)}"
        )
    divisor = math.gcd(original_rate, new_rate)
    up, down = new_rate // divisor, original_rate // divisor
    if up == down or not len(samples):
        return samples
    filters = _polyphase_filters(up, down).to(samples)
    taps = filters.shape[1]
    padded = torch.nn.functional.pad(samples, (taps // 2 - 1, taps // 2))
    windows = padded.unfold(0, taps, 1)  # [samples, taps]
    length = -(-len(samples) * up // down)
    return torch.cat(
        [torch.linalg.vecdot(windows[at], filters[phase]) for at, phase in _positions(length, up, down)]
    )


def _positions(length: int, up: int, down: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of (index of the input sample at or before each output sample, its phase in 0..up-1)."""
    for start in range(0, length, 4096):
        numerator = torch.arange(start, min(start + 4096, length)) * down
        yield numerator // up, numerator % up


@functools.lru_cache(maxsize=4)
def _polyphase_filters(up: int, down: int) -> Tensor:
    """``[up, taps]`` float64: row p weighs the input samples around the point p / up after the middle one."""
    stretch = max(1.0, down / up)  # samples of the input per sample of the lower rate
    half = math.ceil(_HALF_WIDTH * stretch)
    offsets = torch.arange(-half + 1, half + 1, dtype=torch.float64)
    phases = torch.arange(up, dtype=torch.float64) / up
    time = (offsets - phases[:, None]) / stretch  # in samples of the lower rate
    inside = (1 - (time / _HALF_WIDTH).square()).clamp(min=0)
    beta = torch.tensor(_KAISER_BETA, dtype=torch.float64)
    window = torch.i0(beta * inside.sqrt()) / torch.i0(beta)
    window = window.masked_fill(time.abs() > _HALF_WIDTH, 0)
    filters = _CUTOFF * torch.sinc(_CUTOFF * time) * window
    # Unit gain at 0 Hz in every phase, so that a constant stays constant.
    return filters / filters.sum(1, keepdim=True)
