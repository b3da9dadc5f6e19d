"""Audio files as mono float32 at one sample rate."""

from __future__ import annotations

import math
import os

import soundfile
import torch
from torch import Tensor

from asrkern.data._files import url_in
from asrkern.data.container import ContainerRecording, open_recording
from asrkern.data.recording import Recording, check_finite
from asrkern.data.resampling import Resampler


def load_audio(
    path: str | os.PathLike[str],
    sample_rate: int = 16000,
    *,
    offset_seconds: float = 0.0,
    duration_seconds: float | None = None,
    tolerance_seconds: float = 0.0005,
) -> Tensor:
    """Read an audio file as mono float32: whatever libsndfile reads (WAV, FLAC, Ogg, MP3, ...), and with the extra ``av``
    the sound of MPEG-4, Matroska, WebM, Windows Media, AAC and video files.

    Channels are averaged and other rates are resampled by :class:`asrkern.data.Resampler`. Integer samples are
    divided by 2**(bits - 1), so that full scale is 1 (deepspeech.pytorch divides by 32767 instead). Memory is that of
    the result, whatever the file is. A WAV file whose size was unknown when it was written is read to its end.

    Args:
        path: the file.
        sample_rate: rate of the result in Hz.
        offset_seconds: where to start in the file.
        duration_seconds: how much to read; to the end if None.
        tolerance_seconds: how much of that may be missing at the end, since manifests round durations.

    Returns:
        ``[samples]`` float32 on the CPU, at least one sample.

    Raises:
        FileNotFoundError: there is no such file; also if ``path`` is a URL, which is not opened.
        ValueError: the file is empty, has no samples, is truncated, not audio, or of a form that is not
            read, holds NaN or infinity, or ends before the requested part does.
    """
    name = os.fspath(path)
    if not os.path.exists(path):
        if url_in(name):
            raise FileNotFoundError(
                f"path: expected an audio file, received the URL {name!r}: download it first"
            )
        raise FileNotFoundError(f"path: expected an audio file, received {name!r}, which does not exist")
    if not os.path.isfile(path):
        raise ValueError(f"path: expected a regular file, received {name!r}")
    if not 0 <= offset_seconds < math.inf:
        raise ValueError(f"offset_seconds: expected >= 0, received {offset_seconds}")
    if duration_seconds is not None and not 0 < duration_seconds < math.inf:
        raise ValueError(f"duration_seconds: expected > 0 or None, received {duration_seconds}")
    if not 0 <= tolerance_seconds < math.inf:
        raise ValueError(f"tolerance_seconds: expected >= 0, received {tolerance_seconds}")
    if sample_rate < 1:
        raise ValueError(f"sample_rate: expected positive Hz, received {sample_rate}")
    try:
        with open(path, "rb", buffering=0) as file, open_recording(file) as recording:
            return _load(recording, sample_rate, offset_seconds, duration_seconds, tolerance_seconds)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"path: expected a complete audio file, received {name!r}: {error.error_string}"
        ) from None
    except ValueError as error:
        raise ValueError(f"path: {error} in {name!r}") from None


def _load(
    recording: Recording | ContainerRecording,
    sample_rate: int,
    offset_seconds: float,
    duration_seconds: float | None,
    tolerance_seconds: float,
) -> Tensor:
    rate, length = recording.samplerate, recording.length
    first = round(offset_seconds * rate)
    wanted = None if duration_seconds is None else max(1, round(duration_seconds * rate))
    tolerated = 0 if wanted is None else math.ceil(tolerance_seconds * rate)
    least = first + (1 if wanted is None else max(1, wanted - tolerated))
    if length is not None and length < least:
        raise ValueError(f"expected at least {first + (wanted or 1)} frames at {rate} Hz, received {length}")
    recording.skip(first)
    resampler, received = Resampler(rate, sample_rate), 0
    # It grows in place. Joining tensors would need the memory twice, and a header may promise any length.
    samples = bytearray()
    for block in recording.mono(wanted):
        received += len(block)
        samples += check_finite(resampler(block)).numpy().data
    samples += check_finite(resampler.finish()).numpy().data
    if first + received < least:  # of a file that does not tell its length
        raise ValueError(f"expected at least {least} frames at {rate} Hz, received {first + received}")
    return torch.frombuffer(samples, dtype=torch.float32)
