"""Recordings and streams cut where nobody speaks."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asrkern.data import (
    EnergyDetector,
    Segment,
    load_audio,
    make_detector,
    read_manifest,
    resample,
    speech_segments,
)

RATE = 8000


def recording(*parts: tuple[float, float], seed: int = 0) -> Tensor:
    """Noise, loudness and seconds of each part."""
    draw = torch.Generator().manual_seed(seed)
    return torch.cat([loud * torch.randn(round(s * RATE), generator=draw) for loud, s in parts])


def times(segments: list[Segment], rate: int = RATE) -> list[tuple[float, float]]:
    return [(each.start / rate, (each.start + len(each.samples)) / rate) for each in segments]


SPOKEN = recording((1e-3, 3), (0.1, 2), (1e-3, 4), (0.1, 0.5), (1e-3, 0.6), (0.05, 1), (1e-3, 5.003))


@pytest.mark.parametrize("chunk", [77, 1600, 10**6])
def test_segments_are_what_is_loud_however_it_arrives(chunk: int) -> None:
    found = list(speech_segments(SPOKEN.split(chunk), EnergyDetector(RATE)))
    # Frames have 32 ms, 0.7 s are kept at each end; a pause of 0.6 s is within a segment.
    expected = [(3 - 0.7, 5 + 0.7), (9 - 0.7, 11.1 + 0.7)]
    assert times(found) == [(pytest.approx(a, abs=0.033), pytest.approx(b, abs=0.033)) for a, b in expected]
    for each in found:
        assert torch.equal(each.samples, SPOKEN[each.start : each.start + len(each.samples)])
    whole = list(speech_segments([SPOKEN], EnergyDetector(RATE)))
    assert [each.start for each in found] == [each.start for each in whole]
    assert all(torch.equal(a.samples, b.samples) for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize("chunk", [100, 10**6])
@pytest.mark.parametrize("seconds", [0.01, 0.3, 3.0])
def test_a_stream_that_ends_while_somebody_speaks_loses_nothing(chunk: int, seconds: float) -> None:
    samples = torch.cat([SPOKEN, recording((0.1, seconds))])
    *_, last = speech_segments(samples.split(chunk), EnergyDetector(RATE))
    assert last.start + len(last.samples) == len(samples)
    assert last.start / RATE == pytest.approx(len(samples) / RATE - seconds - 0.7, abs=0.033)


def test_a_segment_comes_when_it_has_ended() -> None:
    given: list[int] = []

    def chunks() -> object:
        for number, chunk in enumerate(SPOKEN.split(800)):
            given.append(number)
            yield chunk

    found = speech_segments(chunks(), EnergyDetector(RATE))
    next(found)
    # A pause of a second after five seconds, in chunks of 0.1 s.
    assert given[-1] == pytest.approx(60, abs=1)


def test_speech_without_pauses_is_cut_and_lost_nowhere() -> None:
    samples = recording((1e-3, 2), *[(0.1, 2.3), (0.03, 0.2)] * 12, (1e-3, 4))
    found = list(speech_segments(samples.split(3000), EnergyDetector(RATE), 5.0))
    assert len(found) > 5 and all(0 < len(each.samples) <= 5 * RATE for each in found)
    ends = [end for _, end in times(found)]
    assert [start for start, _ in times(found)][1:] == ends[:-1]
    assert times(found)[0][0] == pytest.approx(1.3, abs=0.033) and ends[-1] == pytest.approx(32.5, abs=0.033)
    # Where it is less loud, for 0.2 s in each 2.5.
    assert all((end - 2) % 2.5 > 2.29 for end in ends[:-1])


@pytest.mark.parametrize(
    "samples", [torch.empty(0), torch.zeros(5), torch.zeros(9 * RATE), recording((1e-3, 30))]
)
def test_where_nobody_speaks_there_is_nothing(samples: Tensor) -> None:
    found = list(speech_segments(samples.split(999), EnergyDetector(RATE)))
    assert found == []


def test_a_recording_may_begin_with_speech_and_noise_may_rise() -> None:
    samples = recording((0.1, 2), (1e-3, 20), (1e-2, 30), (0.2, 1), (1e-2, 5))
    found = times(list(speech_segments([samples], EnergyDetector(RATE))))
    assert found[0] == (0, pytest.approx(2.7, abs=0.033))
    assert found[-1] == (pytest.approx(51.3, abs=0.033), pytest.approx(53.7, abs=0.033))
    # What is new is taken for speech until it has been there for ten seconds.
    assert len(found) == 3 and found[1][1] - found[1][0] < 12


class Scripted:
    """Says what it was told to."""

    sample_rate, frame_samples = 1000, 32

    def __init__(self, probabilities: Tensor) -> None:
        self.probabilities = probabilities

    def start(self) -> list[int]:
        return [0]

    def step(self, state: list[int], frames: Tensor) -> Tensor:
        state[0] += len(frames)
        return self.probabilities[state[0] - len(frames) : state[0]]


@pytest.mark.parametrize("seed", range(60))
def test_all_speech_is_in_one_segment(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    runs = torch.randint(1, (2, 10, 40, 120)[seed % 4], (60,), generator=draw).tolist()
    levels = torch.rand(60, generator=draw).tolist()
    probabilities = torch.cat([torch.full((n,), p) for n, p in zip(runs, levels)])
    samples = torch.rand(32 * len(probabilities) - seed % 32, generator=draw)
    longest = (1.0, 1.1, 3.0, 30.0)[seed // 4 % 4]
    chunk = (1, 100, 10**6)[seed % 3] if len(samples) < 10_000 else 1000
    found = list(speech_segments(samples.split(chunk), Scripted(probabilities), longest))
    heard = torch.zeros(len(samples))
    for each in found:
        assert 0 < len(each.samples) <= 1000 * longest
        part = slice(each.start, each.start + len(each.samples))
        assert torch.equal(each.samples, samples[part]) and not heard[part].any()
        heard[part] = 1
    assert [each.start for each in found] == sorted(each.start for each in found)
    spoken = (probabilities >= 0.5).repeat_interleave(32)[: len(samples)]
    assert heard[spoken].all()
    # Far from speech nothing is read.
    near = torch.nn.functional.max_pool1d((probabilities >= 0.35).float()[None], 101, 1, 50)[0] > 0
    assert not heard[~near.repeat_interleave(32)[: len(samples)]].any()


def test_what_detectors_there_are() -> None:
    with pytest.raises(ValueError, match="vad: expected one of auto, silero, energy, received 'webrtc'"):
        make_detector("webrtc", RATE)
    assert make_detector("energy", RATE).frame_samples == 256


def test_without_its_packages_auto_is_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert isinstance(make_detector("auto", RATE), EnergyDetector)
    with pytest.raises(ImportError, match=r"silero_vad is not installed: pip install 'asrkern\[vad\]'"):
        make_detector("silero", RATE)


# Not importorskip: the import would leave this process one thread.
needs_silero = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="no silero_vad here")


@needs_silero
@pytest.mark.parametrize("rate", [16000, 8000, 22050])
def test_silero_tells_speech_from_noise(rate: int, data_dir: Path) -> None:
    clips = read_manifest(data_dir / "grid" / "dev.jsonl")[:3]
    silence = recording((1e-4, 4))
    samples = torch.cat([part for clip in clips for part in (silence, load_audio(clip.audio_path))])
    detector = make_detector("silero", rate)
    seconds = len(samples) / 16000
    found = list(speech_segments(resample(samples, 16000, rate).split(round(0.7 * rate)), detector))
    assert len(found) == 3
    for number, (start, end) in enumerate(times(found, rate)):
        clip = seconds / 3 * number + (seconds / 3 - 2.978)
        assert clip - 0.7 < start < clip + 1 and clip + 1.7 < end < clip + 3.5
    noise = recording((0.1, 20))
    assert list(speech_segments([noise], detector)) == []


@needs_silero
def test_silero_hears_a_recording_in_any_pieces() -> None:
    detector = make_detector("silero", 16000)
    frames = 0.1 * torch.randn(100, 512)
    whole = detector.step(detector.start(), frames)
    state = detector.start()
    parts = torch.cat([detector.step(state, part) for part in frames.split([1, 0, 7, 60, 32])])
    assert whole.shape == (100,) and (whole - parts).abs().max() < 1e-5 and whole.std() > 0


@needs_silero
def test_silero_leaves_torch_its_threads() -> None:
    code = (
        "import sys, torch; torch.set_num_threads(2); from asrkern.data import make_detector\n"
        "detector = make_detector('silero', 16000); detector.step(detector.start(), torch.zeros(9, 512))\n"
        "print(torch.get_num_threads(), 'silero_vad' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
