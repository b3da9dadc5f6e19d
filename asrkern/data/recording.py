"""Reads a recording forward, in blocks, from any file that libsndfile decodes."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator

import numpy
import soundfile
import torch
from torch import Tensor

from asrkern.data.formats import START_BYTES, recognize, refusal
from asrkern.data.wav import is_unknown_size, read_wav_header

_RATES_HZ = (1_000, 384_000)
_MOST_CHANNELS = 1024  # libsndfile's limit
_BLOCK_VALUES = 1 << 17

# Samples without a header: ffmpeg's name → (soundfile's name, bytes); little-endian.
RAW = {
    "u8": ("PCM_U8", 1),
    "s16le": ("PCM_16", 2),
    "s24le": ("PCM_24", 3),
    "s32le": ("PCM_32", 4),
    "f32le": ("FLOAT", 4),
    "f64le": ("DOUBLE", 8),
    "mulaw": ("ULAW", 1),
    "alaw": ("ALAW", 1),
}
_SAMPLE_BYTES = dict(RAW.values())

# libsndfile silently shortens a file that is cut off. Only its log says so.
_SIZE_IN_LOG = re.compile(r"(data|SSND|BODY|Data Size|riff)\s*: (\d+) \(should be (\d+)\)")
_RF64_FRAMES_IN_LOG = re.compile(
    r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)"
)
_OGG_DAMAGE_IN_LOG = re.compile(r"Ogg\s*: (.*End-Of-Stream.*|Last page lacks .*|Junk after .*)")
_CHUNKS_AFTER_DATA = (b"LIST", b"id3 ", b"ID3 ", b"fact", b"PEAK", b"bext", b"cue ", b"JUNK")
_VOC_DAMAGE_IN_LOG = "Seems to be a truncated file."
_NIST_FRAMES = re.compile(rb"sample_count -i (\d+)")  # libsndfile ignores it
_MOST_BYTES = 1 << 62  # a larger number is no size

# libsndfile 1.2.2 seeks to a wrong place in the last page of Ogg files, which holds less than this. After seeking, in
# MP3 too, the first second differs from what decoding from the start gives.
_LAST_PAGE_SECONDS, _WARM_UP_SECONDS = 120, 1


def check_form(rate: int, channels: int) -> None:
    """Raise ValueError unless such audio is plausible."""
    if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise ValueError(f"expected a rate of {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz, received {rate} Hz")
    if not 1 <= channels <= _MOST_CHANNELS:
        raise ValueError(f"expected 1 to {_MOST_CHANNELS} channels, received {channels}")


def mono(block: numpy.ndarray) -> Tensor:
    """The mean of the channels of [frames, channels] float32.

    Raises:
        ValueError: a sample is NaN or infinite.
    """
    samples = torch.from_numpy(block)
    return check_finite(samples[:, 0] if samples.shape[1] == 1 else samples.mean(1))


def check_finite(samples: Tensor) -> Tensor:
    """The samples. ValueError if one is NaN or infinite, as resampling makes them of very large numbers."""
    # numpy does it 100 times as fast as torch.
    if not numpy.isfinite(samples.numpy()).all():
        raise ValueError("expected finite samples, received NaN or infinity")
    return samples


class Recording(soundfile.SoundFile):
    """A recording that is read once, forward.

    Args:
        file: open for reading, unbuffered; it stays open.

    Attributes:
        length: in frames; None if the file does not tell.

    Raises:
        ValueError: it is no audio, truncated, or of an absurd rate.
        soundfile.LibsndfileError: libsndfile cannot read it.
    """

    def __init__(self, file: io.FileIO) -> None:
        start = file.read(START_BYTES)
        found = recognize(start)
        if not start:
            raise ValueError("expected audio, received an empty file")
        if found is not None and not found.readable:
            raise ValueError(refusal(found))
        told = _NIST_FRAMES.search(start + file.read(1024)) if start.startswith(b"NIST_1A") else None
        endless = found is not None and found.name == "MP3" and not _mp3_tells_length(file)
        file.seek(0)
        # By a descriptor: soundfile would take a name ending in .raw for headerless PCM.
        super().__init__(FilePart(file, stretch=64) if endless else file.fileno(), closefd=False)
        if not self.frames and found is not None and found.name in ("WAV", "RF64"):
            self._open_without_size(file)
        self.length = None if endless or self.frames > _MOST_BYTES else self.frames
        self._position = 0
        check_form(self.samplerate, self.channels)
        self._check_complete()
        if told and int(told[1]) > self.frames:
            raise ValueError(f"expected {int(told[1])} frames, received {self.frames}: it is truncated")

    def _open_without_size(self, file: io.FileIO) -> None:
        """Open WAV that was written to a pipe. It may declare 0 bytes, and libsndfile would read nothing."""
        file.seek(0)
        header = read_wav_header(file.read)
        if header.encoding is None or header.data_bytes is not None:
            return
        data = file.tell()
        if file.read(4) in _CHUNKS_AFTER_DATA:
            return
        self.close()
        file.seek(data)
        super().__init__(
            FilePart(file, data),
            samplerate=header.sample_rate,
            channels=header.channels,
            subtype=RAW[header.encoding][0],
            endian="LITTLE",
            format="RAW",
        )

    def _check_complete(self) -> None:
        log = self.extra_info
        frame_bytes = self.channels * _SAMPLE_BYTES.get(self.subtype, 1)
        for name, declared, present in _SIZE_IN_LOG.findall(log):
            declared, present = int(declared), int(present)
            unknown = declared >= _MOST_BYTES if name == "riff" else is_unknown_size(declared)
            if declared // frame_bytes > present // frame_bytes and not unknown:
                raise ValueError(f"expected {declared} bytes, received {present}: it is truncated")
        for present, declared in _RF64_FRAMES_IN_LOG.findall(log):
            if int(present) < int(declared) < _MOST_BYTES:
                raise ValueError(f"expected {declared} frames, received {present}: it is truncated")
        if _VOC_DAMAGE_IN_LOG in log:
            raise ValueError("expected a complete file, received one that is truncated")
        if damage := _OGG_DAMAGE_IN_LOG.search(log):
            raise ValueError(f"expected a complete Ogg stream, received one with this: {damage[1]}")

    def seekable(self) -> bool:
        """False: else soundfile would seek after each read to where it is, which loses samples (MP3, Opus, FLAC of unknown
        length)."""
        return False

    def skip(self, frames: int) -> None:
        """Go to a frame, from the start."""
        self._position = frames
        if self.length is not None and super().seekable():
            target = frames
            if self.format in ("OGG", "MP3"):
                target = min(frames, self.length - _LAST_PAGE_SECONDS * self.samplerate)
                target = max(0, target - _WARM_UP_SECONDS * self.samplerate)
            if target:
                self.seek(target)
            frames -= target
        for _ in self._blocks(frames):
            pass

    def mono(self, frames: int | None = None) -> Iterator[Tensor]:
        """The mean of the channels, [frames] float32, in blocks.

        Args:
            frames: how many at most; None for all that follow.

        Raises:
            ValueError: a sample is NaN or infinite, or there are fewer frames than the file says.
            soundfile.LibsndfileError: it cannot be decoded.
        """
        expected = received = 0
        if self.length is not None:
            expected = self.length - self._position
            expected = expected if frames is None else min(frames, expected)
        for block in self._blocks(frames):
            received += len(block)
            yield mono(block)
        if received < expected:
            raise ValueError(f"expected {expected} frames, received {received}: it is truncated")

    def _blocks(self, frames: int | None) -> Iterator[numpy.ndarray]:
        most = max(1, _BLOCK_VALUES // self.channels)
        while frames is None or frames > 0:
            block = self.read(most if frames is None else min(most, frames), dtype="float32", always_2d=True)
            if not len(block):
                return
            if frames is not None:
                frames -= len(block)
            yield block


class FilePart:
    """A file from some byte on, whose end may seem further away than it is.

    For an MP3 file without a Xing header libsndfile computes the length from the file's size, and reads no more. If the
    bit rate varies, that may be half of the file. If the size seems larger, it reads all of it.
    """

    def __init__(self, file: io.FileIO, start: int = 0, stretch: int = 1) -> None:
        self._file, self._start, self._stretch = file, start, stretch
        self.readinto = file.readinto

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            offset += self._start
        try:
            position = self._file.seek(offset, whence)
            if whence == os.SEEK_END and not offset:
                position = self._file.seek(self._stretch * position)
        except (OSError, OverflowError):
            return -1
        return position - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def read(self, size: int) -> bytes:
        return self._file.read(size)


def _mp3_tells_length(file: io.FileIO) -> bool:
    """Whether the first frame is a Xing header with the number of frames."""
    position = 0
    while True:
        file.seek(position)
        start = file.read(256)
        if start[:3] != b"ID3" or len(start) < 10:
            break
        size = 0
        for byte in start[6:10]:
            size = size << 7 | byte & 0x7F
        position += 10 + size
    at = max(start.find(b"Xing"), start.find(b"Info"))
    return at >= 0 and len(start) > at + 7 and bool(start[at + 7] & 1)
