"""Headers of WAV and RF64, also from programs that did not know yet how long the recording gets."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_BLOCK_BYTES = 1 << 16


class WavHeader(NamedTuple):
    """The content of a header.

    Attributes:
        encoding: of the samples, by ffmpeg's name; None if there is no name for them here.
        channels: how many.
        sample_rate: in Hz.
        data_bytes: how many bytes the samples have; None if the writer did not know.
    """

    encoding: str | None
    channels: int
    sample_rate: int
    data_bytes: int | None


def is_unknown_size(size: int) -> bool:
    """Whether programs write this size for one that they do not know: it is near 2 or 4 GiB.

    sox writes 0x7F000000 (AIFF) and 0x7FFFF000, arecord 0x7FFFFF00 and 0x80000000, ffmpeg 0xFFFFFFFF.
    """
    return 0x7F000000 <= size <= 0x80010000 or size >= 0xFFFF0000


def read_wav_header(read: Callable[[int], bytes]) -> WavHeader:
    """Read up to the first sample, or, if the samples are of another kind, up to the end of the format.

    Args:
        read: returns the next so many bytes, fewer only at the end.

    Raises:
        ValueError: it is cut off, or no such header.
    """

    def exactly(size: int) -> bytes:
        data = read(size)
        if len(data) < size:
            raise ValueError(f"expected {size} more bytes of WAV header, received {len(data)} before the end")
        return data

    start = exactly(12)
    if start[:4] not in (b"RIFF", b"RF64") or start[8:] != b"WAVE":
        raise ValueError(f"expected WAV, received {start!r}")
    found, long_size = None, 0
    while True:
        name, size = struct.unpack("<4sI", exactly(8))
        padded = size + size % 2
        if name == b"data":
            break
        if name == b"fmt ":
            if not 16 <= size < _BLOCK_BYTES:
                raise ValueError(f"expected WAV's format to have at least 16 bytes, received {size}")
            found = _read_format(exactly(padded))
            if found.encoding is None:
                return found
        elif name == b"ds64" and 16 <= size < _BLOCK_BYTES:
            (long_size,) = struct.unpack("<Q", exactly(padded)[8:16])
        else:
            for first in range(0, padded, _BLOCK_BYTES):
                exactly(min(_BLOCK_BYTES, padded - first))
    if found is None:
        raise ValueError("expected WAV's format before its data, received none")
    if start[:4] == b"RF64" and size == 0xFFFFFFFF:
        size = long_size if long_size < 2**62 else 0
    elif is_unknown_size(size):
        size = 0
    return found._replace(data_bytes=size or None)


def _read_format(data: bytes) -> WavHeader:
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", data[:16])
    if tag == _EXTENSIBLE and len(data) >= 26:
        (tag,) = struct.unpack("<H", data[24:26])
    if channels < 1:
        raise ValueError("expected WAV of at least one channel, received 0")
    encoding = {
        (_PCM, 8): "u8",
        (_PCM, 16): "s16le",
        (_PCM, 24): "s24le",
        (_PCM, 32): "s32le",
        (_FLOAT, 32): "f32le",
        (_FLOAT, 64): "f64le",
        (_MULAW, 8): "mulaw",
        (_ALAW, 8): "alaw",
    }.get((tag, bits))
    if align > channels * bits // 8:  # e.g. 24 bits in 32
        encoding = None
    return WavHeader(encoding, channels, rate, None)
