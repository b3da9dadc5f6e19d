"""asrkern.data.SpectrogramStream: any chunks give the bits of the whole signal."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asrkern.data import LogMelSpectrogram, Spectrogram, SpectrogramStream, load_audio, read_manifest

NORMALIZATIONS = ["running", (0.25, 0.5), (0, 1)]


def in_chunks(stream: SpectrogramStream, samples: Tensor, sizes: list[int]) -> Tensor:
    """Features of samples fed in chunks of these sizes, again and again."""
    state, features, first = stream.start(), [], 0
    while first < len(samples):
        for size in sizes:
            features.append(stream.step(state, samples[first : first + size]))
            first += size
            state = pickle.loads(pickle.dumps(state))
    features.append(stream.finish(state))
    return torch.cat(features, 1)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(161, 6000),
    sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=5).filter(any),
    normalization=st.sampled_from(NORMALIZATIONS),
    rate=st.sampled_from([16000, 8000, 11025]),
)
def test_any_chunks_give_the_same_bits(samples, sizes, normalization, rate):
    x = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
    spectrogram = Spectrogram(rate, normalization=normalization)
    assert torch.equal(in_chunks(SpectrogramStream(spectrogram), x, sizes), spectrogram(x))


@pytest.mark.parametrize("sizes", [[1], [159, 161], [160], [4000, 0, 7]])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_speech_in_chunks(data_dir, normalization, sizes):
    utterance = next(iter(read_manifest(data_dir / "lj" / "dev.jsonl")))
    samples = load_audio(utterance.audio_path)[: 1000 if sizes == [1] else 60000]
    spectrogram = Spectrogram(normalization=normalization, periodic=False)
    assert torch.equal(in_chunks(SpectrogramStream(spectrogram), samples, sizes), spectrogram(samples))


def test_running_normalisation_by_definition():
    x = torch.randn(1600, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.01, 1, 1600)
    plain = Spectrogram(normalization=(0, 1))(x).double()
    running = Spectrogram(normalization="running")(x)
    for frame in range(plain.shape[1]):
        past = plain[:, : frame + 1]
        expected = (plain[:, frame] - past.mean()) / past.std()
        torch.testing.assert_close(running[:, frame].double(), expected, rtol=0, atol=1e-5)
    # At the end all is past: the utterance's own statistics.
    torch.testing.assert_close(running[:, -1], Spectrogram()(x)[:, -1], rtol=0, atol=1e-5)


def test_fixed_normalisation_by_definition():
    x = torch.randn(1600)
    plain = Spectrogram(normalization=(0, 1))(x)
    assert torch.equal(Spectrogram(normalization=(0.5, 2.0))(x), (plain - 0.5) / 2)
    utterance = Spectrogram(normalization=(plain.mean().item(), plain.std().item()))(x)
    torch.testing.assert_close(utterance, Spectrogram()(x), rtol=0, atol=1e-5)


def test_digital_silence_is_zero():
    assert torch.equal(Spectrogram(normalization="running")(torch.zeros(1600)), torch.zeros(161, 11))


def test_a_frame_comes_half_a_window_after_its_centre():
    stream = SpectrogramStream(Spectrogram(normalization=(0, 1)))
    state = stream.start()
    assert stream.step(state, torch.randn(160)).shape == (161, 0)  # the reflection needs one more
    assert stream.step(state, torch.randn(1)).shape == (161, 1)
    assert stream.step(state, torch.randn(158)).shape == (161, 0)
    assert stream.step(state, torch.randn(1)).shape == (161, 1)


def test_finish_leaves_the_stream_as_it_is():
    stream = SpectrogramStream(Spectrogram(normalization="running"))
    state, samples = stream.start(), torch.randn(2000)
    first = stream.step(state, samples[:999])
    ending = stream.finish(state)
    assert torch.equal(torch.cat([first, ending], 1), stream.spectrogram(samples[:999]))
    fork = copy.deepcopy(state)
    rest = [stream.step(state, samples[999:]), stream.finish(state)]
    assert torch.equal(torch.cat([first, *rest], 1), stream.spectrogram(samples))
    assert torch.equal(stream.finish(fork), ending)


def test_too_little_signal_has_no_frames():
    stream = SpectrogramStream(Spectrogram(normalization="running"))
    state = stream.start()
    assert stream.finish(state).shape == (161, 0)
    stream.step(state, torch.randn(160))
    assert stream.finish(state).shape == (161, 0)


def test_whole_utterance_normalisation_is_refused():
    with pytest.raises(ValueError, match=r'normalization: expected "running" or .*received "utterance"'):
        SpectrogramStream(Spectrogram())
    with pytest.raises(TypeError, match="spectrogram: expected a Spectrogram, received Linear"):
        SpectrogramStream(torch.nn.Linear(1, 1))


def test_other_transforms_are_refused():
    with pytest.raises(TypeError, match="spectrogram: expected a Spectrogram, received LogMelSpectrogram"):
        SpectrogramStream(LogMelSpectrogram())


@pytest.mark.parametrize("value", ["global", (1,), (0, 0), (0, -1), (float("nan"), 1), None])
def test_bad_normalisations_are_refused(value):
    with pytest.raises(ValueError, match="normalization: expected"):
        Spectrogram(normalization=value)


def test_bad_samples_are_refused_and_change_nothing():
    stream = SpectrogramStream(Spectrogram(normalization="running"))
    state = stream.start()
    stream.step(state, torch.randn(500))
    for samples in (torch.zeros(1, 500), torch.zeros(500, dtype=torch.int16)):
        with pytest.raises(ValueError, match="samples: expected floating point of shape"):
            stream.step(state, samples)
    assert stream.finish(state).shape[1] == 500 // 160 + 1 - 3
