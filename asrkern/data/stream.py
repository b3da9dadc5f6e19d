"""Audio from a pipe as it comes: WAV, or samples without a header."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy
import torch
from torch import Tensor

# ffmpeg's names; little-endian.
ENCODINGS = ("u8", "s16le", "s24le", "s32le", "f32le", "f64le")

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# Writers that do not know the size yet put 0, or something near 2 or 4 GiB.
_UNKNOWN_FROM = 0x7FFF0000
_BLOCK_BYTES = 1 << 16


class _Format(NamedTuple):
    encoding: str
    channels: int
    bytes_left: int | None  # of samples; None: to the end of the stream

    @property
    def frame_bytes(self) -> int:
        return self.channels * int(self.encoding.strip("usfle")) // 8


def read_stream(
    file: BinaryIO,
    sample_rate: int = 16000,
    *,
    chunk_seconds: float = 0.1,
    encoding: str = "s16le",
    channels: int = 1,
) -> Iterator[Tensor]:
    """Read audio in chunks from a pipe, a socket's file or ``sys.stdin.buffer``; nothing is sought.

    What begins with "RIFF" is WAV, whose header says what it holds; its size may be unknown. All else is samples,
    described by ``encoding`` and ``channels``. Values and channels become what :func:`asrkern.data.load_audio` makes of
    them.

    Args:
        file: binary.
        sample_rate: in Hz. Samples without a header are taken to have it; WAV must.
        chunk_seconds: how long a chunk is.
        encoding, channels: of samples without a header; see ``ENCODINGS``.

    Returns:
        Tensors [samples], float32: as many as make a chunk, as soon as they are there; the last one may be shorter.

    Raises:
        ValueError: an argument out of range, or WAV that is cut off or of another rate or encoding. While reading: the
            stream ends within a sample or before the size that WAV declares, or holds NaN or infinity. All complete
            samples before that have been returned.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding: expected one of {', '.join(ENCODINGS)}, received {encoding!r}")
    if channels < 1 or sample_rate < 1:
        raise ValueError(
            f"channels, sample_rate: expected positive integers, received {channels}, {sample_rate}"
        )
    if not sample_rate * chunk_seconds >= 1:
        raise ValueError(f"chunk_seconds: expected at least one sample, received {chunk_seconds}")
    start = _read(file, 4)
    form = _Format(encoding, channels, None)
    if start == b"RIFF":
        start, form = b"", _read_wav_header(file, sample_rate)
    return _chunks(file, start, form, round(sample_rate * chunk_seconds))


def _chunks(file: BinaryIO, start: bytes, form: _Format, chunk: int) -> Iterator[Tensor]:
    frame_bytes, left = form.frame_bytes, form.bytes_left
    while left is None or left > 0:
        wanted = chunk * frame_bytes if left is None else min(chunk * frame_bytes, left)
        data = start[:wanted] + _read(file, wanted - len(start))
        start = start[wanted:]
        if frames := len(data) // frame_bytes:
            samples = _to_mono(data[: frames * frame_bytes], form)
            if not samples.isfinite().all():
                raise ValueError("file: expected finite samples, received NaN or infinity")
            yield samples
        if left is not None:
            left -= len(data)
        if len(data) < wanted:
            if left:
                raise ValueError(f"file: expected {left} more bytes of samples, received the stream's end")
            if len(data) % frame_bytes:
                raise ValueError(
                    f"file: expected whole samples of {frame_bytes} bytes, "
                    f"received {len(data) % frame_bytes} at the stream's end"
                )
            return


def _read(file: BinaryIO, size: int) -> bytes:
    """size bytes, fewer only at the stream's end: a pipe gives what it has."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _to_mono(data: bytes, form: _Format) -> Tensor:
    encoding = form.encoding
    if encoding == "s24le":
        # The upper three bytes of 32-bit integers.
        wide = numpy.zeros((len(data) // 3, 4), numpy.uint8)
        wide[:, 1:] = numpy.frombuffer(data, numpy.uint8).reshape(-1, 3)
        values, scale = wide.view("<i4")[:, 0], 2.0**31
    else:
        dtype, scale = {
            "u8": ("u1", 2.0**7),
            "s16le": ("<i2", 2.0**15),
            "s32le": ("<i4", 2.0**31),
            "f32le": ("<f4", 1.0),
            "f64le": ("<f8", 1.0),
        }[encoding]
        values = numpy.frombuffer(data, dtype)
    values = values.astype(numpy.float64) - (128 if encoding == "u8" else 0)
    samples = (values / scale).astype(numpy.float32)
    return torch.from_numpy(samples).view(-1, form.channels).mean(1)


def _read_wav_header(file: BinaryIO, sample_rate: int) -> _Format:
    """What follows "RIFF", up to the first sample."""
    if _exactly(file, 8)[4:] != b"WAVE":
        raise ValueError("file: expected WAV after RIFF, received another form")
    found = None
    while True:
        name, size = struct.unpack("<4sI", _exactly(file, 8))
        if name == b"data":
            break
        if name == b"fmt ":
            if not 16 <= size < _BLOCK_BYTES:
                raise ValueError(f"file: expected WAV's format to have at least 16 bytes, received {size}")
            found = _exactly(file, size + size % 2)
        else:
            for first in range(0, size + size % 2, _BLOCK_BYTES):
                _exactly(file, min(_BLOCK_BYTES, size + size % 2 - first))
    if found is None:
        raise ValueError("file: expected WAV's format before its data, received none")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", found[:16])
    if tag == _EXTENSIBLE and len(found) >= 26:
        (tag,) = struct.unpack("<H", found[24:26])
    encoding = {_PCM: "u8" if bits == 8 else f"s{bits}le", _FLOAT: f"f{bits}le"}.get(tag)
    if encoding not in ENCODINGS or channels < 1:
        raise ValueError(
            f"file: expected PCM of 8 to 32 bits or floating point, "
            f"received WAV format {tag} of {bits} bits in {channels} channels"
        )
    if rate != sample_rate:
        raise ValueError(f"file: expected {sample_rate} Hz, received WAV of {rate} Hz; resample it first")
    return _Format(encoding, channels, size if 0 < size < _UNKNOWN_FROM else None)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = _read(file, size)
    if len(data) < size:
        raise ValueError(
            f"file: expected {size} more bytes of WAV header, received {len(data)} before the end"
        )
    return data
