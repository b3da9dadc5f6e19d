"""asrkern.data.load_audio: files of every kind, good and bad."""

from __future__ import annotations

import math
import struct
import tempfile
from pathlib import Path

import numpy
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.data import load_audio, read_manifest, resample
from tests.data.recordings import FORMS, voice, wav_with_sizes, without_length, write


def noise(samples: int, channels: int = 1, seed: int = 0) -> numpy.ndarray:
    generator = numpy.random.default_rng(seed)
    return generator.uniform(-0.5, 0.5, (samples, channels)).astype(numpy.float32)


@pytest.mark.parametrize("subtype, step", [("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0.0)])
def test_wav_is_read_to_its_quantisation_step(tmp_path, subtype, step):
    x = noise(4097)
    soundfile.write(tmp_path / "a.wav", x, 16000, subtype=subtype)
    y = load_audio(tmp_path / "a.wav")
    assert y.dtype == torch.float32 and y.shape == (4097,)
    assert (y - torch.from_numpy(x[:, 0])).abs().max() <= step


def test_full_scale_is_one(tmp_path):
    soundfile.write(tmp_path / "a.wav", numpy.array([-32768, 16384, 0], numpy.int16), 16000)
    assert load_audio(tmp_path / "a.wav").tolist() == [-1.0, 0.5, 0.0]


@pytest.mark.parametrize("channels", [2, 3])
def test_channels_are_averaged(tmp_path, channels):
    x = noise(1000, channels)
    soundfile.write(tmp_path / "a.wav", x, 16000, subtype="FLOAT")
    torch.testing.assert_close(load_audio(tmp_path / "a.wav"), torch.from_numpy(x.mean(1)), rtol=0, atol=1e-7)


def test_other_rates_are_resampled(tmp_path):
    t = numpy.arange(11025) / 11025
    soundfile.write(tmp_path / "a.wav", 0.5 * numpy.sin(2 * math.pi * 440 * t), 11025, subtype="FLOAT")
    y = load_audio(tmp_path / "a.wav")
    expected = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(16000, dtype=torch.float64) / 16000)
    assert y.shape == (16000,)
    assert (y - expected)[1000:-1000].abs().max() < 1e-5


def test_a_part_of_a_file(tmp_path):
    x = noise(32000)
    soundfile.write(tmp_path / "a.flac", x, 16000, subtype="PCM_24")
    whole = load_audio(tmp_path / "a.flac")
    part = load_audio(tmp_path / "a.flac", offset_seconds=0.25, duration_seconds=1.1)
    assert torch.equal(part, whole[4000:21600])
    assert torch.equal(load_audio(tmp_path / "a.flac", offset_seconds=1.5), whole[24000:])


@pytest.mark.parametrize(
    "offset, duration, message",
    [
        (2.0, None, "expected at least 32001 frames at 16000 Hz, received 32000"),
        (1.0, 1.5, "expected at least 40000 frames at 16000 Hz, received 32000"),
        (-0.1, None, "offset_seconds: expected >= 0, received -0.1"),
        (math.nan, None, "offset_seconds: expected >= 0, received nan"),
        (0.0, 0.0, "duration_seconds: expected > 0 or None, received 0.0"),
        (0.0, math.inf, "duration_seconds: expected > 0 or None, received inf"),
    ],
)
def test_a_part_outside_the_file_is_refused(tmp_path, offset, duration, message):
    soundfile.write(tmp_path / "a.wav", noise(32000), 16000)
    with pytest.raises(ValueError, match=message):
        load_audio(tmp_path / "a.wav", offset_seconds=offset, duration_seconds=duration)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        load_audio(tmp_path / "absent.wav")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a regular file"):
        load_audio(tmp_path)


@pytest.mark.parametrize(
    "name", ["empty.wav", "empty.raw", "text.flac", "text.raw", "header_only.wav", "tags_only.wav"]
)
def test_what_is_not_audio_is_refused(tmp_path, name):
    path = tmp_path / name
    if name in ("header_only.wav", "tags_only.wav"):
        soundfile.write(path, noise(0), 16000)
        path.write_bytes(path.read_bytes() + b"LIST\x08\0\0\0INFOabcd" * (name == "tags_only.wav"))
    else:
        path.write_bytes(b"" if name.startswith("empty") else b"It is cheaper to mend a roof in June. " * 20)
    with pytest.raises(ValueError, match=rf"path: expected .*received .*{name}"):
        load_audio(path)


@pytest.mark.parametrize("kind, subtype", FORMS)
@pytest.mark.parametrize("kept", [0.4, 0.99])
def test_a_truncated_file_is_refused(tmp_path, kind, subtype, kept):
    path = write(tmp_path / "a.x", voice(48000), 16000, kind, subtype)
    assert len(load_audio(path)) >= 48000
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"path: expected .*received "):
        load_audio(path)


# ffmpeg and sox, sox with 24 bits, arecord, arecord's RIFF, GStreamer.
PIPED = [0xFFFFFFFF, 0x7FFFF000, 0x7FFFEFFC, 0x7FFFFF00, 0x80000024, 0x7FFFFFFF, 0]


@pytest.mark.parametrize("size", PIPED)
@pytest.mark.parametrize("subtype, channels", [("PCM_16", 1), ("PCM_24", 2), ("FLOAT", 1), ("ULAW", 3)])
@pytest.mark.parametrize("rest", [0, 1])
def test_a_wav_written_to_a_pipe_has_no_size_and_is_read(tmp_path, size, subtype, channels, rest):
    """To its last whole sample."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1001, channels), 16000, subtype=subtype)
    right, _ = soundfile.read(path, dtype="float32", always_2d=True)
    content = wav_with_sizes(path.read_bytes(), riff=size, data=size)
    path.write_bytes(content + bytes(rest if channels > 1 or subtype != "ULAW" else 0))
    assert torch.equal(load_audio(path), torch.from_numpy(right).mean(1))
    part = load_audio(path, offset_seconds=0.01, duration_seconds=0.02)
    assert torch.equal(part, torch.from_numpy(right).mean(1)[160:480])
    # A manifest's line without a duration.
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav"}')
    assert read_manifest(tmp_path / "m.jsonl")[0].duration_seconds == 1001 / 16000


def test_an_rf64_written_to_a_pipe_has_no_size_and_is_read(tmp_path):
    path = write(tmp_path / "a.x", noise(1000), 16000, "RF64", "PCM_16")
    right, content = load_audio(path), path.read_bytes()
    at = content.index(b"ds64") + 8
    path.write_bytes(content[:at] + bytes(24) + content[at + 24 :])
    assert torch.equal(load_audio(path), right)


@pytest.mark.parametrize(
    "kind, name, size", [("AIFF", b"SSND", 0x7F000008), ("AU", b".snd\0\0\0\x18", 0xFFFFFFFF)]
)
def test_other_forms_written_to_a_pipe_have_no_size_and_are_read(tmp_path, kind, name, size):
    """As sox writes them."""
    path = write(tmp_path / "a.x", noise(1000), 16000, kind, "PCM_16")
    right, content = load_audio(path), bytearray(path.read_bytes())
    at = content.index(name) + len(name)
    content[at : at + 4] = struct.pack(">I", size)
    if kind == "AIFF":
        frames = content.index(b"COMM") + 10
        content[frames : frames + 4] = struct.pack(">I", 0x7F000000 // 2)
    path.write_bytes(content)
    assert torch.equal(load_audio(path), right)


@pytest.mark.parametrize("riff, data", [(8, 0), (-100, 0), (0, 1), (None, 1)])
def test_sizes_of_wav_that_are_off_but_lack_no_sample(tmp_path, riff, data):
    """RecordRTC's RIFF is 8 bytes too long; others count the padding."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1000), 16000)
    sizes = {"riff": 0xFFFFFFFF if riff is None else 2036 + riff, "data": 2000 + data}
    path.write_bytes(wav_with_sizes(path.read_bytes(), **sizes))
    assert load_audio(path).shape == (1000,)


@pytest.mark.parametrize("size", [2002, 4000, 1 << 24, 3_000_000_000])
def test_a_wav_that_lacks_samples_is_refused(tmp_path, size):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1000), 16000)
    path.write_bytes(wav_with_sizes(path.read_bytes(), riff=size + 36, data=size))
    with pytest.raises(
        ValueError, match=rf"path: expected {size} bytes, received 2000: it is truncated in .*a\.wav"
    ):
        load_audio(path)


@pytest.mark.parametrize("kind, subtype", FORMS)
def test_a_part_is_that_of_the_whole(tmp_path, kind, subtype):
    """Also where libsndfile cannot seek, or seeks to a wrong place: in the last page of Ogg."""
    path = write(tmp_path / "a.x", voice(64001), 16000, kind, subtype)
    with soundfile.SoundFile(path) as file:
        right = torch.from_numpy(file.read(80000, dtype="float32"))
    assert torch.equal(load_audio(path), right)
    for start in (0, 1, 4000, 51234, 63000):
        part = load_audio(path, offset_seconds=start / 16000, duration_seconds=0.05)
        torch.testing.assert_close(part, right[start : start + 800], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="path: expected at least 81600 frames at 16000 Hz, received 6"):
        load_audio(path, offset_seconds=5, duration_seconds=0.1)


@pytest.mark.parametrize("kind, subtype", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_a_part_of_a_longer_file(tmp_path, kind, subtype, monkeypatch):
    """Long enough that it is sought in."""
    monkeypatch.setattr("asrkern.data.recording._LAST_PAGE_SECONDS", 5)
    path = write(tmp_path / "a.x", voice(20 * 8000, 8000), 8000, kind, subtype)
    whole = load_audio(path, 8000)
    assert whole.shape == (20 * 8000,)
    for start in (0, 3000, 11 * 8000, 15 * 8000 + 17, 19 * 8000):
        part = load_audio(path, 8000, offset_seconds=start / 8000, duration_seconds=1)
        torch.testing.assert_close(part, whole[start : start + 8000], rtol=0, atol=1e-6)


def test_an_mp3_is_the_same_in_blocks(tmp_path):
    """Each block once began without the bits that the frames before it had for it: most of a tone was lost."""
    tone = 0.4 * numpy.sin(2 * numpy.pi * 300 * numpy.arange(20 * 16000) / 16000)
    soundfile.write(tmp_path / "a.mp3", tone, 16000)
    right, _ = soundfile.read(tmp_path / "a.mp3", dtype="float32")
    torch.testing.assert_close(load_audio(tmp_path / "a.mp3"), torch.from_numpy(right), rtol=0, atol=1e-6)


@pytest.mark.parametrize("louder", ["start", "end"])
@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125)])
def test_an_mp3_that_does_not_tell_its_length_is_read_to_its_end(tmp_path, louder, tail):
    """libsndfile takes the first frame's bit rate for that of all."""
    samples = voice(20 * 16000)
    samples[slice(0, 8000) if louder == "end" else slice(8000, None)] *= 1e-3
    path = tmp_path / "a.mp3"
    soundfile.write(path, samples, 16000, bitrate_mode="VARIABLE", compression_level=0.3)
    right = load_audio(path)
    path.write_bytes(without_length(path.read_bytes()) + tail)
    assert abs(soundfile.info(path).frames - len(right)) > 3000
    whole = load_audio(path)
    # What decoders add at the start, and what fills the last frame, are told together with the length.
    assert 1105 <= len(whole) - len(right) < 3000
    torch.testing.assert_close(whole[1105 + 3000 : 1105 + len(right)], right[3000:], rtol=0, atol=1e-5)
    part = load_audio(path, offset_seconds=10, duration_seconds=1)
    assert torch.equal(part, whole[160000:176000])
    with pytest.raises(ValueError, match=r"expected at least \d+ frames at 16000 Hz, received \d+"):
        load_audio(path, offset_seconds=15, duration_seconds=9)


def test_a_flac_that_does_not_tell_its_length_is_read_to_its_end(tmp_path):
    path = write(tmp_path / "a.x", noise(40003), 16000, "FLAC", "PCM_16")
    right, content = load_audio(path), bytearray(path.read_bytes())
    # 36 bits of STREAMINFO, as encoders to a pipe leave them.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert torch.equal(load_audio(path), right)
    assert torch.equal(load_audio(path, offset_seconds=2.25, duration_seconds=0.25), right[36000:40000])


def test_a_duration_may_be_rounded(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(16000), 16000)
    assert load_audio(tmp_path / "a.wav", duration_seconds=1.0004).shape == (16000,)
    with pytest.raises(ValueError, match="expected at least 16160 frames"):
        load_audio(tmp_path / "a.wav", duration_seconds=1.01)
    assert load_audio(tmp_path / "a.wav", duration_seconds=1.01, tolerance_seconds=0.025).shape == (16000,)


@pytest.mark.parametrize(
    "start, name",
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "MPEG-4"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "Matroska or WebM"),
        (b"\xff\xf1\x50\x80\x2e\x7f\xfc\x21", "AAC"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
        (b"#!AMR\n", "AMR"),
    ],
)
def test_what_would_read_other_forms_is_said(tmp_path, start, name, monkeypatch):
    monkeypatch.setattr("asrkern.data.container.is_installed", lambda: False)
    (tmp_path / "a.m4a").write_bytes(start + numpy.random.default_rng(0).bytes(5000))
    with pytest.raises(
        ValueError,
        match=rf"libsndfile reads, received {name}.*; pip install 'asrkern\[av\]', or convert it: ffmpeg -i .* in .*a\.m4a",
    ):
        load_audio(tmp_path / "a.m4a")


@pytest.mark.parametrize("rate", [44100, 8000])
def test_a_long_file_is_resampled_as_a_whole_signal(tmp_path, rate):
    """It is read in blocks."""
    samples = noise(300_001)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    assert torch.equal(load_audio(tmp_path / "a.wav"), resample(torch.from_numpy(samples[:, 0]), rate, 16000))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad):
    x = noise(1000)
    x[500] = bad
    soundfile.write(tmp_path / "a.wav", x, 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="expected finite samples, received NaN or infinity"):
        load_audio(tmp_path / "a.wav")


def test_samples_that_resampling_makes_infinite_are_refused(tmp_path):
    x = numpy.where(noise(1000) > 0, 3e38, -3e38)
    soundfile.write(tmp_path / "a.wav", x, 44100, subtype="FLOAT")
    assert load_audio(tmp_path / "a.wav", 44100).isfinite().all()
    with pytest.raises(ValueError, match="expected finite samples, received NaN or infinity"):
        load_audio(tmp_path / "a.wav")


def test_an_absurd_rate_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1000), 2_000_000_000)
    with pytest.raises(ValueError, match="expected a rate of 1000 to 384000 Hz, received 2000000000 Hz"):
        load_audio(tmp_path / "a.wav")


def valid_files() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for kind in ("wav", "flac", "ogg"):
            path = Path(folder, f"a.{kind}")
            soundfile.write(path, noise(2000, 2), 8000)
            files.append(path.read_bytes())
    return files


def assert_reads_or_raises_value_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fuzz.wav")
        path.write_bytes(content)
        try:
            samples = load_audio(path)
        except ValueError as error:
            assert "fuzz.wav" in str(error)
        else:
            assert samples.dim() == 1 and len(samples) > 0 and samples.isfinite().all()


@given(
    content=st.binary(max_size=300), magic=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"FORM", b".snd"])
)
@settings(max_examples=150, deadline=None)
def test_random_bytes_never_raise_anything_but_value_error(content, magic):
    assert_reads_or_raises_value_error(magic + content)


@given(
    content=st.sampled_from(valid_files()),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_damaged_headers_never_raise_anything_but_value_error(content, changes):
    damaged = bytearray(content)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    assert_reads_or_raises_value_error(bytes(damaged))
