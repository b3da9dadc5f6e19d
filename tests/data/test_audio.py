"""asrkern.data.audio: files of every kind, good and bad, and the resampler against sines."""

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

from asrkern.data import load_audio, resample


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


@pytest.mark.parametrize("name", ["empty.wav", "empty.raw", "text.flac", "text.raw", "header_only.wav"])
def test_what_is_not_audio_is_refused(tmp_path, name):
    path = tmp_path / name
    if name == "header_only.wav":
        soundfile.write(path, noise(0), 16000)
    else:
        path.write_bytes(b"" if name.startswith("empty") else b"It is cheaper to mend a roof in June. " * 20)
    with pytest.raises(ValueError, match=rf"path: expected .*received .*{name}"):
        load_audio(path)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "aiff", "au"])
@pytest.mark.parametrize("kept", [0.4, 0.99])
def test_a_truncated_file_is_refused(tmp_path, kind, kept):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, noise(48000), 16000)
    assert load_audio(path).shape == (48000,)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"path: expected .*received "):
        load_audio(path)


def test_a_wav_written_to_a_pipe_has_no_size_and_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1000), 16000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert load_audio(path).shape == (1000,)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad):
    x = noise(1000)
    x[500] = bad
    soundfile.write(tmp_path / "a.wav", x, 16000, subtype="FLOAT")
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


RATES = [(44100, 16000), (8000, 16000), (22050, 16000), (48000, 16000), (16000, 44100), (11025, 16000)]


def sine(frequency: float, rate: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(rate, dtype=torch.float64) / rate + 0.3)


@pytest.mark.parametrize("original, new", RATES)
def test_resample_keeps_sines_of_the_passband(original, new):
    for fraction in (0.01, 0.31, 0.5, 0.77, 0.9):
        frequency = fraction * min(original, new) / 2
        middle = slice(new // 4, -new // 4)
        y = resample(sine(frequency, original), original, new)[middle]
        torch.testing.assert_close(y, sine(frequency, new)[middle], rtol=0, atol=5e-5)


@pytest.mark.parametrize("original, new", [pair for pair in RATES if pair[0] > pair[1]])
def test_resample_stops_what_would_alias(original, new):
    for frequency in (1.0 * new / 2, 1.1 * new / 2, 0.99 * original / 2):
        y = resample(sine(frequency, original), original, new)[new // 4 : -new // 4]
        assert y.square().mean().sqrt() < math.sqrt(0.5) * 10 ** (-90 / 20)


@pytest.mark.parametrize("original, new", [*RATES, (16001, 16000), (3, 2), (16000, 16000)])
@pytest.mark.parametrize("samples", [1, 2, 159, 4097])
def test_resampled_length_is_exact(original, new, samples):
    x = torch.randn(samples)
    assert len(resample(x, original, new)) == math.ceil(samples * new / original)


def test_resample_to_the_same_rate_changes_nothing():
    x = torch.randn(1000)
    assert torch.equal(resample(x, 16000, 16000), x)


def test_resample_has_no_delay():
    x = torch.zeros(401, dtype=torch.float64)
    x[200] = 1
    y = resample(x, 8000, 16000)
    assert y.argmax() == 400
    torch.testing.assert_close(y[300:400], y[401:501].flip(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "x, original, new, message",
    [
        (torch.zeros(4), 0, 16000, "expected positive Hz, received 0, 16000"),
        (torch.zeros(4), 8000, -1, "expected positive Hz, received 8000, -1"),
        (torch.zeros(2, 4), 8000, 16000, r"received torch.float32 of shape \[2, 4\]"),
        (torch.zeros(4, dtype=torch.int16), 8000, 16000, r"received torch.int16 of shape \[4\]"),
    ],
)
def test_resample_refuses(x, original, new, message):
    with pytest.raises(ValueError, match=message):
        resample(x, original, new)
