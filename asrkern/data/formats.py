"""The form of a file or a stream, by its first bytes."""

from __future__ import annotations

import os
from typing import NamedTuple

START_BYTES = 64


class AudioFormat(NamedTuple):
    """What the first bytes say about a file.

    Attributes:
        name: its usual name.
        readable: whether libsndfile reads it.
        certain: whether samples without a header almost never begin like this.
        demuxer: what FFmpeg calls a form that libsndfile does not read; None if it has none.
    """

    name: str
    readable: bool = True
    certain: bool = True
    demuxer: str | None = None


# Name → (offset, bytes), all of which must be there.
_READABLE = {
    "WAV": [(0, b"RIFF"), (8, b"WAVE")],
    "big-endian WAV": [(0, b"RIFX"), (8, b"WAVE")],
    "RF64": [(0, b"RF64")],
    "W64": [(0, b"riff\x2e\x91\xcf\x11")],
    "FLAC": [(0, b"fLaC")],
    "Ogg": [(0, b"OggS")],
    "MP3": [(0, b"ID3")],
    "AIFF": [(0, b"FORM"), (8, b"AIF")],
    "8SVX": [(0, b"FORM"), (8, b"8SVX")],
    "16SV": [(0, b"FORM"), (8, b"16SV")],
    "AU": [(0, b".snd")],
    "little-endian AU": [(0, b"dns.")],
    "CAF": [(0, b"caff")],
    "NIST Sphere": [(0, b"NIST_1A")],
    "VOC": [(0, b"Creative Voice File")],
}
# Name → FFmpeg's, and the same.
_UNREADABLE = {
    "MPEG-4 (m4a, mp4)": ("mov", [(4, b"ftyp")]),
    "Matroska or WebM": ("matroska", [(0, b"\x1a\x45\xdf\xa3")]),
    "Windows Media": ("asf", [(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")]),
    "AMR": ("amr", [(0, b"#!AMR")]),
    "WavPack": ("wv", [(0, b"wvpk")]),
    "Monkey's Audio": ("ape", [(0, b"MAC ")]),
    "AVI": ("avi", [(0, b"RIFF"), (8, b"AVI ")]),
    "Flash video": ("flv", [(0, b"FLV\x01")]),
    "MPEG video": ("mpeg", [(0, b"\x00\x00\x01\xba")]),
    "AAC": (None, [(0, b"ADIF")]),
}


def recognize(start: bytes) -> AudioFormat | None:
    """The format of what begins with these bytes (``START_BYTES`` of them, if there are so many); None if unknown."""
    for name, parts in _READABLE.items():
        if _has(start, parts):
            return AudioFormat(name)
    for name, (demuxer, parts) in _UNREADABLE.items():
        if _has(start, parts):
            return AudioFormat(name, readable=False, demuxer=demuxer)
    # An MPEG frame begins with eleven or twelve ones, then version and layer. Layer 0 is AAC.
    if len(start) > 2 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0:
        if start[1] & 0xF6 == 0xF0:
            return AudioFormat("AAC", readable=False, certain=False, demuxer="aac")
        if (
            start[1] & 0x18 != 0x08
            and start[1] & 0x06
            and start[2] & 0xF0 != 0xF0
            and start[2] & 0x0C != 0x0C
        ):
            return AudioFormat("MP3", certain=False)
    return None


def _has(start: bytes, parts: list[tuple[int, bytes]]) -> bool:
    return all(start[at : at + len(magic)] == magic for at, magic in parts)


def is_readable(path: str | os.PathLike[str]) -> bool:
    """Whether libsndfile may read the file, as far as its first bytes tell, or it is none."""
    if not os.path.isfile(path):
        return True
    with open(path, "rb") as file:
        found = recognize(file.read(START_BYTES))
    return found is None or found.readable


def refusal(found: AudioFormat) -> str:
    """The message about a format that libsndfile does not read."""
    return (
        f"expected a form of audio that libsndfile reads, received {found.name}; "
        "pip install 'asrkern[av]', or convert it: ffmpeg -i RECORDING recording.wav"
    )
