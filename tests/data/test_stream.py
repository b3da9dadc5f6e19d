"""asrkern.data.read_stream beside load_audio, through real pipes."""

from __future__ import annotations

import io
import os
import struct
import threading
import time

import numpy
import pytest
import soundfile
import torch

from asrkern.data import load_audio, read_stream

SUBTYPES = {
    "PCM_U8": "u8",
    "PCM_16": "s16le",
    "PCM_24": "s24le",
    "PCM_32": "s32le",
    "FLOAT": "f32le",
    "DOUBLE": "f64le",
}


class Trickle(io.RawIOBase):
    """Gives a few bytes at a time, as pipes may."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, self._most))


def write_wav(path, subtype="PCM_16", channels=1, samples=5003, rate=16000, format="WAV"):
    x = numpy.random.default_rng(0).uniform(-1, 1, (samples, channels))
    soundfile.write(path, x, rate, subtype=subtype, format=format)
    return path.read_bytes()


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("format", ["WAV", "WAVEX"])
def test_wav_is_what_load_audio_reads(tmp_path, subtype, channels, format):
    path = tmp_path / "x.wav"
    data = write_wav(path, subtype, channels, format=format)
    chunks = list(read_stream(Trickle(data, 777), chunk_seconds=0.05))
    assert [len(chunk) for chunk in chunks] == [800] * 6 + [203]
    assert all(chunk.dtype == torch.float32 for chunk in chunks)
    assert torch.equal(torch.cat(chunks), load_audio(path))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("encoding", SUBTYPES.values())
def test_samples_without_a_header(tmp_path, encoding, channels):
    path = tmp_path / "x.wav"
    subtype = next(name for name, value in SUBTYPES.items() if value == encoding)
    data = write_wav(path, subtype, channels)
    raw = data[data.index(b"data") + 8 :][: 5003 * channels * int(encoding.strip("usfle")) // 8]
    chunks = list(read_stream(Trickle(raw, 999), encoding=encoding, channels=channels))
    assert torch.equal(torch.cat(chunks), load_audio(path))


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_of_unknown_size(tmp_path, size):
    path = tmp_path / "x.wav"
    data = write_wav(path)
    at = data.index(b"data") + 4
    streamed = data[:at] + struct.pack("<I", size) + data[at + 4 :]
    assert torch.equal(torch.cat(list(read_stream(io.BytesIO(streamed)))), load_audio(path))


def test_other_chunks_of_wav_are_passed_over(tmp_path):
    path = tmp_path / "x.wav"
    data = write_wav(path)
    at = data.index(b"data")
    padded = (
        data[:at]
        + b"LIST"
        + struct.pack("<I", 70001)
        + bytes(70002)
        + data[at:]
        + b"LIST"
        + b"\x04\0\0\0tail"
    )
    assert torch.equal(torch.cat(list(read_stream(io.BytesIO(padded)))), load_audio(path))


def test_chunks_come_before_the_stream_ends():
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as file, os.fdopen(sink, "wb", buffering=0) as writer:
        stream = []
        reader = threading.Thread(target=lambda: stream.extend(chunk for chunk in read_stream(file)))
        reader.start()
        writer.write(bytes(2 * 1600))
        deadline = time.monotonic() + 10
        while not stream and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [len(chunk) for chunk in stream] == [1600]
        writer.write(bytes(2 * 7))
        writer.close()
        reader.join(10)
    assert [len(chunk) for chunk in stream] == [1600, 7]


def test_an_empty_stream_has_no_chunks():
    assert list(read_stream(io.BytesIO())) == []


def read_until_error(data: bytes, message: str) -> list[int]:
    """Lengths of the chunks that come before the error."""
    lengths = []
    with pytest.raises(ValueError, match=message):
        for chunk in read_stream(io.BytesIO(data)):
            lengths.append(len(chunk))
    return lengths


def test_what_a_broken_stream_holds_comes_first(tmp_path):
    data = write_wav(tmp_path / "x.wav")
    message = "expected 1001 more bytes of samples, received the stream's end"
    assert read_until_error(data[:-1001], message) == [1600, 1600, 5003 - 3200 - 501]
    message = "expected whole samples of 2 bytes, received 1 at the stream's end"
    assert read_until_error(bytes(3203), message) == [1600, 1]
    with pytest.raises(ValueError, match="expected finite samples, received NaN or infinity"):
        list(read_stream(io.BytesIO(struct.pack("<2f", 0, float("inf"))), encoding="f32le"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"RIFF", "expected 8 more bytes of WAV header, received 0 before the end"),
        (b"RIFF\0\0\0\0AVI ", "expected WAV after RIFF"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "expected WAV's format before its data"),
        (
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0ab",
            "expected 16 more bytes of WAV header, received 2 before the end",
        ),
        (
            b"RIFF\0\0\0\0WAVEfmt \x02\0\0\0abdata\0\0\0\0",
            "expected WAV.s format to have at least 16 bytes, received 2",
        ),
    ],
)
def test_bad_headers_are_refused(header, message):
    with pytest.raises(ValueError, match=message):
        read_stream(io.BytesIO(header))


def test_other_rates_and_encodings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 16000 Hz, received WAV of 8000 Hz; resample it first"):
        read_stream(io.BytesIO(write_wav(tmp_path / "x.wav", rate=8000)))
    with pytest.raises(ValueError, match="received WAV format 7 of 8 bits in 1 channels"):
        read_stream(io.BytesIO(write_wav(tmp_path / "x.wav", "ULAW")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "s16be"}, "encoding: expected one of u8, s16le.*received 's16be'"),
        ({"channels": 0}, "channels, sample_rate: expected positive integers, received 0, 16000"),
        ({"sample_rate": 0}, "channels, sample_rate: expected positive integers, received 1, 0"),
        ({"chunk_seconds": 0.0}, r"chunk_seconds: expected at least one sample, received 0\.0"),
        ({"chunk_seconds": float("nan")}, "chunk_seconds: expected at least one sample, received nan"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        read_stream(io.BytesIO(), **options)
