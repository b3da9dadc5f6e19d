"""Recordings of every form, and what programs that write to a pipe leave of their headers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy
import soundfile

# Format and subtype, as soundfile calls them; in some of these libsndfile cannot seek.
FORMS = [
    ("WAV", "PCM_16"),
    ("WAV", "GSM610"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "ULAW"),
    ("WAV", "G721_32"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("VOC", "PCM_16"),
    ("NIST", "PCM_16"),
]


def voice(samples: int, rate: int = 16000, seed: int = 0) -> numpy.ndarray:
    """A tone and noise that swell and fade, float64: lossy encoders spend different bits on it."""
    draw, time = numpy.random.default_rng(seed), numpy.arange(samples) / rate
    tone = numpy.sin(2 * numpy.pi * 300 * time + numpy.sin(5 * time))
    return (0.4 * tone + 0.05 * draw.standard_normal(samples)) * (0.6 + 0.4 * numpy.sin(7 * time))


def write(path: Path, samples: numpy.ndarray, rate: int, kind: str, subtype: str) -> Path:
    """The path."""
    soundfile.write(path, samples, rate, format=kind, subtype=subtype)
    return path


def wav_with_sizes(content: bytes, *, riff: int, data: int) -> bytes:
    """The same WAV file with other sizes in its header."""
    changed = bytearray(content)
    at = content.index(b"data") + 4
    changed[4:8], changed[at : at + 4] = struct.pack("<I", riff), struct.pack("<I", data)
    return bytes(changed)


def without_length(content: bytes) -> bytes:
    """An MP3 file without its first frame, which holds no sound but a table and the length."""
    return content[content.index(content[:2], 40) :]
