"""The sound of what libsndfile does not read: MPEG-4, Matroska, video files and others, by PyAV (FFmpeg's libraries)."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from torch import Tensor

from asrkern._optional import require
from asrkern.data.formats import START_BYTES, recognize, refusal
from asrkern.data.recording import FilePart, Recording, check_form, mono

# How much shorter than it says a recording may be: encoders' delay and padding. Of some forms FFmpeg guesses the length by
# the size.
_TOLERANCE_SECONDS = 0.5
_WITHOUT_LENGTH = ("aac", "amr", "mpeg")


def open_recording(file: io.FileIO) -> Recording | ContainerRecording:
    """A recording of any form.

    Args:
        file: open for reading, unbuffered; it stays open.

    Raises:
        ValueError, soundfile.LibsndfileError: as Recording and ContainerRecording.
    """
    start = file.read(START_BYTES)
    file.seek(0)
    found = recognize(start)
    if found is None or found.readable:
        return Recording(file)
    if found.demuxer is None or not is_installed():
        raise ValueError(refusal(found))
    return ContainerRecording(file, found.demuxer)


def is_installed() -> bool:
    """Whether PyAV is."""
    return importlib.util.find_spec("av") is not None


class ContainerRecording:
    """The first audio stream of a file, read once, forward.

    FFmpeg is given the file, not its name, and the one form that its first bytes show: it opens no other file and no
    address that a playlist names.

    Args:
        file: open for reading; it stays open.
        demuxer: FFmpeg's name of the form.

    Attributes:
        samplerate: in Hz.
        length: None, since it is known for certain only at the end.

    Raises:
        ValueError: it cannot be read, has no sound, or is of an absurd rate.
    """

    length = None

    def __init__(self, file: io.FileIO, demuxer: str) -> None:
        self._av = require("av", "av")
        with self._refused():
            # Places that are none, which a damaged file may name, are errors of FFmpeg's.
            self._container = self._av.open(FilePart(file), format=demuxer, metadata_errors="ignore")
        if not self._container.streams.audio:
            raise ValueError("expected a file with sound, received one without")
        self._stream = self._container.streams.audio[0]
        if self._stream.codec_context is None:
            raise ValueError("expected a codec that FFmpeg decodes, received another")
        self.samplerate = self._stream.rate
        self._tells_length = demuxer not in _WITHOUT_LENGTH
        self._rest: Iterator[Tensor] = self._decoded()
        check_form(self.samplerate, self._stream.channels)

    def __enter__(self) -> ContainerRecording:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def skip(self, frames: int) -> None:
        """Go to a frame, from the start."""
        for block in self._rest:
            if len(block) > frames:
                self._rest = _before(block[frames:], self._rest)
                return
            frames -= len(block)

    def mono(self, frames: int | None = None) -> Iterator[Tensor]:
        """The mean of the channels, [frames] float32, in blocks.

        Args:
            frames: how many at most; None for all that follow.

        Raises:
            ValueError: a sample is NaN or infinite, or it is truncated or damaged.
        """
        for block in self._rest:
            if frames is None:
                yield block
            elif frames > 0:
                yield block[:frames]
                frames -= len(block)
            if frames is not None and frames <= 0:
                return

    def _decoded(self) -> Iterator[Tensor]:
        frames = self._frames()
        resampler = self._av.AudioResampler(format="fltp", layout=self._stream.layout, rate=self.samplerate)
        with self._refused():
            for frame in chain(frames, [None]):
                for each in resampler.resample(frame):
                    yield mono(each.to_ndarray().T)

    def _frames(self) -> Iterator[Any]:
        """Decoded frames. All streams are followed, since the recording's length is that of the longest."""
        begin, end = math.inf, -math.inf
        for packet in self._container.demux():
            if packet.pts is not None:
                begin = min(begin, float(packet.pts * packet.time_base))
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is self._stream:
                yield from packet.decode()
        stated = (self._container.duration or 0) / self._av.time_base
        if self._tells_length and end - begin < stated - _TOLERANCE_SECONDS:
            raise ValueError(
                f"expected {stated:.2f} s, received {max(0.0, end - begin):.2f} s: it is truncated"
            )

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """FFmpeg's errors as ValueError."""
        try:
            yield
        except self._av.FFmpegError as error:
            raise ValueError(
                f"expected a complete audio file, received one that FFmpeg refuses: {error.strerror}"
            ) from None


def _before(block: Tensor, rest: Iterator[Any]) -> Iterator[Any]:
    yield block
    yield from rest
