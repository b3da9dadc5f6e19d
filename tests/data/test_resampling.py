"""asrkern.data.Resampler against sines, and whole signals against pieces."""

from __future__ import annotations

import math

import numpy
import pytest
import soundfile
import torch

from asrkern.data import Resampler, load_audio, resample

RATES = [
    (44100, 16000),
    (8000, 16000),
    (22050, 16000),
    (48000, 16000),
    (16000, 44100),
    (11025, 16000),
    (16000, 8000),
    (44100, 8000),
]
MORE = [*RATES, (16001, 16000), (3, 2), (16000, 16000), (384000, 1000), (1000, 384000)]


def sine(frequency: float, rate: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(rate, dtype=torch.float64) / rate + 0.3)


@pytest.mark.parametrize("dtype, floor", [(torch.float64, 2e-6), (torch.float32, 2e-6)])
@pytest.mark.parametrize("original, new", RATES)
def test_sines_of_the_passband_stay(original, new, dtype, floor):
    """Flat to 0.01 dB up to 0.91, exact in the lower half; no delay."""
    ripple = 10 ** (0.01 / 20) - 1
    for fraction, tolerance in (
        (0.01, 0),
        (0.31, 0),
        (0.5, 1e-5),
        (0.77, ripple),
        (0.9, ripple),
        (0.91, ripple),
    ):
        frequency = fraction * min(original, new) / 2
        middle = slice(new // 4, -new // 4)
        y = resample(sine(frequency, original).to(dtype), original, new)[middle].double()
        torch.testing.assert_close(y, sine(frequency, new)[middle], rtol=0, atol=floor + tolerance)


@pytest.mark.parametrize("original, new", RATES)
def test_nothing_is_added_to_a_sine(original, new):
    """Whatever the gain: 130 dB below it."""
    for fraction in (0.05, 0.5, 0.93):
        frequency, middle = fraction * min(original, new) / 2, slice(new // 4, -new // 4)
        y = resample(sine(frequency, original), original, new)[middle]
        phase = 2 * math.pi * frequency * torch.arange(new, dtype=torch.float64)[middle] / new
        basis = torch.stack([phase.sin(), phase.cos()], 1)
        residual = y - basis @ torch.linalg.lstsq(basis, y[:, None]).solution[:, 0]
        assert residual.square().mean().sqrt() < math.sqrt(0.5) * 10 ** (-130 / 20)


@pytest.mark.parametrize("original, new", [pair for pair in RATES if pair[0] > pair[1]])
def test_what_would_alias_is_stopped(original, new):
    for frequency in (1.0 * new / 2, 1.1 * new / 2, 0.99 * original / 2):
        y = resample(sine(frequency, original), original, new)[new // 4 : -new // 4]
        assert y.square().mean().sqrt() < math.sqrt(0.5) * 10 ** (-130 / 20)


@pytest.mark.parametrize("original, new", MORE)
@pytest.mark.parametrize("samples", [1, 2, 159, 4097])
def test_the_length_is_exact(original, new, samples):
    x = torch.randn(samples)
    assert len(resample(x, original, new)) == math.ceil(samples * new / original)


@pytest.mark.parametrize("original, new", MORE)
def test_pieces_give_the_same_bits(original, new):
    draw = numpy.random.default_rng()
    x = torch.from_numpy(draw.standard_normal(int(draw.integers(1, 20_000)))).float()
    whole = resample(x, original, new)
    for most in (3, 300, 9000):
        resampler, parts, rest = Resampler(original, new), [], x[:400] if most == 3 else x
        expected = resample(rest, original, new) if most == 3 else whole
        while len(rest):
            size = int(draw.integers(0, most + 1))
            parts.append(resampler(rest[:size]))
            rest = rest[size:]
        assert torch.equal(torch.cat([*parts, resampler.finish()]), expected)


def test_what_is_known_of_the_result_comes_at_once():
    for original, new, delay in (
        (48000, 16000, 0.04),
        (44100, 16000, 0.045),
        (8000, 16000, 0.12),
        (16000, 8000, 0.12),
    ):
        resampler, written = Resampler(original, new), 0
        for piece in range(1, 101):
            written += len(resampler(torch.zeros(original // 100)))
            assert 0 <= piece / 100 - written / new <= delay


def test_the_same_rate_changes_nothing():
    x = torch.randn(1000)
    assert torch.equal(resample(x, 16000, 16000), x)


def test_there_is_no_delay():
    x = torch.zeros(401, dtype=torch.float64)
    x[200] = 1
    y = resample(x, 8000, 16000)
    assert y.argmax() == 400
    torch.testing.assert_close(y[300:400], y[401:501].flip(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_and_strides(dtype):
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = resample(x[::2], 44100, 16000)
    assert y.dtype == dtype
    expected = resample(x[::2].double().clone(), 44100, 16000)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=3 * torch.finfo(dtype).eps + 1e-6)


def test_silence_of_a_16_bit_file_stays_silent(tmp_path):
    """soxr's own int16 adds a dither: findings/soxr_int16_dither.sh."""
    soundfile.write(tmp_path / "a.wav", numpy.zeros(44100, numpy.int16), 44100)
    samples = load_audio(tmp_path / "a.wav", 16000)
    assert len(samples) == 16000 and not samples.any()


@pytest.mark.parametrize(
    "x, original, new, message",
    [
        (torch.zeros(4), 0, 16000, "expected positive Hz, received 0, 16000"),
        (torch.zeros(4), 8000, -1, "expected positive Hz, received 8000, -1"),
        (torch.zeros(4), 1, 1_000_000_000, "expected a ratio of at most 1024, received 1, 1000000000"),
        (torch.zeros(2, 4), 8000, 16000, r"received torch.float32 of shape \[2, 4\]"),
        (torch.zeros(4, dtype=torch.int16), 8000, 16000, r"received torch.int16 of shape \[4\]"),
    ],
)
def test_bad_arguments_are_refused(x, original, new, message):
    with pytest.raises(ValueError, match=message):
        resample(x, original, new)
