"""load_audio and read_stream: small files of many forms, damaged, whole and in parts, at other rates, in pieces."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy
import soundfile
import torch

from asrkern.data import load_audio, read_stream
from asrkern.data.container import is_installed
from tests.data.films import FORMS, write

REFUSALS = (ValueError,)

_FORMS = [
    *[
        ("WAV", subtype)
        for subtype in ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "ALAW", "GSM610")
    ],
    *[("WAV", subtype) for subtype in ("IMA_ADPCM", "MS_ADPCM", "G721_32")],
    *[("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT")],
    *[
        ("AU", "PCM_16"),
        ("AU", "ULAW"),
        ("CAF", "PCM_16"),
        ("CAF", "ALAC_16"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
    ],
    *[("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("VOC", "PCM_16"), ("NIST", "PCM_16")],
]
_EXTREMES = (0, 1, 2, 3, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF)
_LONG_EXTREMES = (0, 1, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_RATES = (8000, 16000, 44100)

# Of frames that a byte can hold: a frame of silence, in any form.
_MOST_FRAMES_A_BYTE = 1 << 16


def prepare(folder: Path) -> list[tuple[bytes, torch.Tensor]]:
    """(content, samples at 16 kHz) of valid files."""
    draw, valid = numpy.random.default_rng(0), []
    for kind, subtype in _FORMS:
        for rate, channels, frames in ((16000, 1, 400), (8000, 2, 700)):
            if channels > 1 and subtype in ("GSM610", "G721_32"):
                continue
            path = folder / "valid"
            samples = draw.uniform(-0.5, 0.5, (frames, channels))
            soundfile.write(path, samples, rate, format=kind, subtype=subtype)
            valid.append((path.read_bytes(), load_audio(path)))
    if is_installed():
        for suffix, codec, pictures in FORMS:
            path = write(folder / f"valid.{suffix}", codec, pictures, seconds=0.3)
            valid.append((path.read_bytes(), load_audio(path)))
    return valid


def one(rng: numpy.random.Generator, folder: Path, prepared: list[tuple[bytes, torch.Tensor]]) -> None:
    """A file or stream."""
    content, right = prepared[rng.integers(len(prepared))]
    kind = rng.choice(["valid", "damaged", "noise"], p=[0.05, 0.9, 0.05])
    if kind == "noise":
        content = content[: rng.integers(64)] + rng.bytes(int(rng.integers(300)))
    elif kind == "damaged":
        content = _damaged(rng, content, prepared)
    if rng.random() < 0.5:
        path = folder / "input"
        path.write_bytes(content)
        if kind == "valid":
            assert torch.equal(load_audio(path), right)
        rate = int(rng.choice(_RATES))
        offset = float(rng.choice([0, 0, 1e-4, 0.01, 0.03, 1, 1e9]))
        duration = rng.choice([None, None, None, 1e-5, 0.01, 0.02, 5, 1e9])
        samples = load_audio(path, rate, offset_seconds=offset, duration_seconds=duration)
        assert len(samples) > 0 and (duration is None or len(samples) <= duration * rate + 100)
        _check(samples, content, rate)
        return
    options = {}
    if kind != "valid" and rng.random() < 0.3:
        encoding = str(rng.choice(["u8", "s16le", "s24le", "f32le", "mulaw"]))
        options = {
            "encoding": encoding,
            "channels": int(rng.integers(1, 4)),
            "original_rate": int(rng.choice(_RATES)),
        }
    rate = 16000 if kind == "valid" else int(rng.choice(_RATES))
    most = int(rng.choice([7, 100, 100_000]))
    chunks = list(
        read_stream(_Trickle(content, most), rate, chunk_seconds=float(rng.choice([1e-3, 0.1, 3])), **options)
    )
    samples = torch.cat([torch.empty(0), *chunks])
    if kind == "valid":
        assert torch.equal(samples, right)
    _check(samples, content, rate)


def _check(samples: torch.Tensor, content: bytes, rate: int) -> None:
    assert samples.dtype == torch.float32 and samples.dim() == 1 and samples.isfinite().all()
    assert len(samples) <= len(content) * _MOST_FRAMES_A_BYTE


def _damaged(
    rng: numpy.random.Generator, content: bytes, prepared: list[tuple[bytes, torch.Tensor]]
) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        # Headers most.
        at = int(rng.integers(min(len(changed), 120 if rng.random() < 0.7 else len(changed)) or 1))
        match rng.choice(["bit", "byte", "cut", "short", "number", "long", "splice", "repeat", "remove"]):
            case "bit" if changed:
                changed[at % len(changed)] ^= 1 << int(rng.integers(8))
            case "byte" if changed:
                changed[at % len(changed)] = int(rng.integers(256))
            case "cut":
                del changed[int(rng.integers(len(changed) + 1)) :]
            case "short":
                changed[at : at + 2] = struct.pack(
                    rng.choice(["<H", ">H"]), int(rng.choice(_EXTREMES)) & 0xFFFF
                )
            case "number":
                changed[at : at + 4] = struct.pack(rng.choice(["<I", ">I"]), int(rng.choice(_EXTREMES)))
            case "long":
                value = _LONG_EXTREMES[rng.integers(len(_LONG_EXTREMES))]
                changed[at : at + 8] = struct.pack(rng.choice(["<Q", ">Q"]), value)
            case "splice":
                other = prepared[rng.integers(len(prepared))][0]
                changed[at:] = other[int(rng.integers(len(other))) :]
            case "repeat":
                changed[at:at] = changed[at : at + int(rng.integers(64))]
            case "remove":
                del changed[at : at + int(rng.integers(64))]
    return bytes(changed)


class _Trickle(io.RawIOBase):
    """Gives a few bytes at a time, as pipes may."""

    def __init__(self, content: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(content), most

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, self._most))
