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
from tests.data.recordings import FORMS, voice, wav_with_sizes, write

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
    options = {"encoding": encoding, "channels": channels}
    chunks = list(read_stream(Trickle(raw, 999), **options))
    assert torch.equal(torch.cat(chunks), load_audio(path))


@pytest.mark.parametrize("size", [0, 0x7FFFEFFC, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000024, 0xFFFFFFFF])
@pytest.mark.parametrize("rest", [b"", b"\1"])
def test_wav_of_unknown_size(tmp_path, size, rest):
    path = tmp_path / "x.wav"
    streamed = wav_with_sizes(write_wav(path), riff=size, data=size) + rest
    assert torch.equal(torch.cat(list(read_stream(io.BytesIO(streamed)))), load_audio(path))


@pytest.mark.parametrize("size", [10005, 10007])
def test_wav_of_an_odd_size(tmp_path, size):
    """Of 5003 samples, as far as they are whole."""
    path = tmp_path / "x.wav"
    path.write_bytes(wav_with_sizes(write_wav(path), riff=size + 36, data=size))
    assert len(load_audio(path)) == size // 2
    assert torch.equal(torch.cat(list(read_stream(io.BytesIO(path.read_bytes())))), load_audio(path))


@pytest.mark.parametrize("most", [1, 777, 1 << 20])
@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_every_form_is_what_load_audio_reads(tmp_path, form, most):
    path = write(tmp_path / "a.x", voice(9001 if most > 1 else 600, 16000), 16000, *form)
    chunks = list(read_stream(Trickle(path.read_bytes(), most), chunk_seconds=0.05))
    assert {len(chunk) for chunk in chunks[:-1]} <= {800} and 0 < len(chunks[-1]) <= 800
    assert torch.equal(torch.cat(chunks), load_audio(path))


@pytest.mark.parametrize("form", [("WAV", "PCM_16"), ("WAV", "ALAW"), ("FLAC", "PCM_16"), ("RF64", "FLOAT")])
@pytest.mark.parametrize("rate, new", [(8000, 16000), (44100, 16000), (48000, 8000)])
def test_other_rates_are_resampled_as_load_audio_does(tmp_path, form, rate, new):
    draw = numpy.random.default_rng()
    path = write(tmp_path / "a.x", draw.uniform(-1, 1, (int(draw.integers(1, 40_000)), 2)), rate, *form)
    seconds = draw.uniform(0.001, 0.5)
    chunks = list(read_stream(Trickle(path.read_bytes(), 999), new, chunk_seconds=seconds))
    assert {len(chunk) for chunk in chunks[:-1]} <= {round(new * seconds)}
    assert torch.equal(torch.cat(chunks), load_audio(path, new))


@pytest.mark.parametrize("encoding, subtype", [("mulaw", "ULAW"), ("alaw", "ALAW"), ("s16le", "PCM_16")])
def test_samples_without_a_header_have_a_rate(tmp_path, encoding, subtype):
    data = write_wav(tmp_path / "x.wav", subtype, rate=8000)
    at = data.index(b"data") + 8
    raw = data[at : at + 5003 * (2 if encoding == "s16le" else 1)]
    chunks = list(read_stream(Trickle(raw, 99), encoding=encoding, original_rate=8000))
    assert torch.equal(torch.cat(chunks), load_audio(tmp_path / "x.wav"))


def test_samples_are_read_on_request_only():
    raw = numpy.random.default_rng(0).bytes(1000)
    with pytest.raises(
        ValueError, match=r"file: expected WAV, FLAC.*; samples without a header are read where enc"
    ):
        read_stream(io.BytesIO(raw))
    assert len(torch.cat(list(read_stream(io.BytesIO(raw), encoding="s16le")))) == 500
    # What might be the start of an MPEG frame is no reason to doubt it.
    assert len(torch.cat(list(read_stream(io.BytesIO(b"\xff\xfb\x90" + raw[3:]), encoding="s16le")))) == 500


def test_a_header_counts_more_than_what_is_said_of_samples(tmp_path):
    for form in (("FLAC", "PCM_16"), ("WAV", "PCM_24")):
        path = write(tmp_path / "a.x", voice(3000), 16000, *form)
        chunks = list(
            read_stream(io.BytesIO(path.read_bytes()), encoding="u8", channels=2, original_rate=8000)
        )
        assert torch.equal(torch.cat(chunks), load_audio(path))


@pytest.mark.parametrize(
    "start", [b"\0\0\0\x20ftypM4A \0\0", b"\x1a\x45\xdf\xa3\x9f", b"\xff\xf1\x50\x80\x2e"]
)
@pytest.mark.parametrize("encoding", [None, "s16le"])
def test_what_would_read_other_forms_is_said(start, encoding, monkeypatch):
    monkeypatch.setattr("asrkern.data.stream.is_installed", lambda: False)
    if encoding is not None and start[0] == 0xFF:
        return  # It might be samples.
    with pytest.raises(ValueError, match=r"file: expected a form of audio that libsndfile reads.*ffmpeg -i"):
        read_stream(io.BytesIO(start + bytes(1000)), encoding=encoding)


@pytest.mark.parametrize(
    "form", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("AIFF", "PCM_16"), ("WAV", "IMA_ADPCM")]
)
def test_other_forms_that_break_off_are_refused(tmp_path, form):
    data = write(tmp_path / "a.x", voice(40_000), 16000, *form).read_bytes()
    with pytest.raises(ValueError, match="file: expected "):
        list(read_stream(io.BytesIO(data[: len(data) // 2])))


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
        reader = threading.Thread(
            target=lambda: stream.extend(chunk for chunk in read_stream(file, encoding="s16le"))
        )
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


def read_until_error(data: bytes, message: str, **options: str) -> list[int]:
    """Lengths of the chunks that come before the error."""
    lengths = []
    with pytest.raises(ValueError, match=message):
        for chunk in read_stream(io.BytesIO(data), **options):
            lengths.append(len(chunk))
    return lengths


def test_what_a_broken_stream_holds_comes_first(tmp_path):
    data = write_wav(tmp_path / "x.wav")
    message = "expected 1001 more bytes of samples, received the stream's end"
    assert read_until_error(data[:-1001], message) == [1600, 1600, 5003 - 3200 - 501]
    message = "expected whole samples of 2 bytes, received 1 at the stream's end"
    assert read_until_error(bytes(3203), message, encoding="s16le") == [1600, 1]
    with pytest.raises(ValueError, match="expected finite samples, received NaN or infinity"):
        list(read_stream(io.BytesIO(struct.pack("<2f", 0, float("inf"))), encoding="f32le"))


def test_what_a_broken_stream_of_another_rate_holds_comes_first(tmp_path):
    path = write(tmp_path / "a.wav", voice(9000), 44100, "WAV", "PCM_16")
    data, lengths = path.read_bytes(), []
    with pytest.raises(
        ValueError, match="file: expected 4000 more bytes of samples, received the stream's end"
    ):
        for chunk in read_stream(io.BytesIO(data[:-4000])):
            lengths.append(len(chunk))
    assert sum(lengths) == -(-7000 * 160 // 441)
    with pytest.raises(ValueError, match="file: expected finite samples"):
        huge = struct.pack("<2f", 3e38, -3e38) * 1000
        list(read_stream(io.BytesIO(huge), encoding="f32le", original_rate=44100))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"RIFF", "expected WAV, FLAC, .* received b'RIFF'"),
        (b"RIFF\0\0\0\0WAVE", "expected 8 more bytes of WAV header, received 0 before the end"),
        (b"RIFF\0\0\0\0AVI ", r"expected a complete audio file|received AVI; pip install"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 0, 8000, 0, 0, 16), "received 0"),
        (
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 7, 0, 0, 16) + b"data\0\0\0\0",
            "received 7 Hz",
        ),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "s16be"}, "encoding: expected one of u8, s16le.*received 's16be'"),
        ({"channels": 0}, "channels, sample_rate: expected positive integers, received 0, 16000"),
        ({"original_rate": 0}, "original_rate: expected a positive integer, received 0"),
        ({"sample_rate": 0}, "channels, sample_rate: expected positive integers, received 1, 0"),
        ({"chunk_seconds": 0.0}, r"chunk_seconds: expected at least one sample, received 0\.0"),
        ({"chunk_seconds": float("nan")}, "chunk_seconds: expected at least one sample, received nan"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        read_stream(io.BytesIO(), **options)
