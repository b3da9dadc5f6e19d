"""asrkern.models.StreamingDeepSpeech2: any chunks give the bits of the whole utterance, from audio to text."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asrkern.data import Spectrogram, SpectrogramStream, load_audio, read_manifest
from asrkern.decoder import CTCBeamDecoder, NGramLM
from asrkern.models import DeepSpeech2, StreamingDeepSpeech2
from asrkern.nn import quantize
from tests.compare import assert_close, assert_same_bits
from tests.models.test_deepspeech2 import make_model

# Few frequencies, for speed: the fewest that the convolutions take, or 21.
LAYOUTS = {
    "mlperf": {"window_size": 0.01},
    "v1.1": {"bidirectional": False, "window_size": 0.01},
    "v2": {"bidirectional": False, "window_size": 0.0025},
    "v2 unidirectional": {"window_size": 0.0025},
}


@functools.cache
def streamed(layout: str, rnn_type: str = "gru", weights: str = "float32") -> StreamingDeepSpeech2:
    torch.manual_seed(0)
    model = make_model(layout, rnn_type=rnn_type, num_layers=2, **LAYOUTS[layout])
    return StreamingDeepSpeech2(model if weights == "float32" else quantize(model, weights))


def features_for(stream: StreamingDeepSpeech2, frames: int) -> Tensor:
    return torch.randn(stream.model.n_features, frames, generator=torch.Generator().manual_seed(frames))


@torch.no_grad()
def offline(model: DeepSpeech2, features: Tensor) -> Tensor:
    """[frames', V] of one utterance [F, frames], padded where it is too short for the convolutions."""
    frames = features.shape[1]
    padded = nn.functional.pad(features, (0, max(0, 60 - frames)))
    log_probs, lengths = model(padded[None], torch.tensor([frames]))
    return log_probs[0, : lengths[0]]


def in_chunks(stream: StreamingDeepSpeech2, features: Tensor, sizes: list[int]) -> Tensor:
    """Output for features fed in chunks of these sizes, again and again."""
    state, output, first = stream.start(), [], 0
    while first < features.shape[1]:
        for size in sizes:
            output.append(stream.step(state, features[:, first : first + size]))
            first += size
            state = pickle.loads(pickle.dumps(state))
    output.append(stream.finish(state))
    return torch.cat(output)


CHUNKS = st.lists(st.integers(0, 150), min_size=1, max_size=5).filter(any)


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(list(LAYOUTS)),
    rnn_type=st.sampled_from(["gru", "lstm"]),
    frames=st.integers(1, 400),
    sizes=CHUNKS,
)
def test_any_chunks_give_the_same_bits(layout, rnn_type, frames, sizes):
    stream = streamed(layout, rnn_type)
    features = features_for(stream, frames)
    assert_same_bits(in_chunks(stream, features, sizes), offline(stream.model, features))


@pytest.mark.parametrize("weights", ["int8", "bf16"])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_any_chunks_give_the_same_bits_with_fewer_bits_in_the_weights(rnn_type, weights):
    stream = streamed("v2 unidirectional", rnn_type, weights)
    features = features_for(stream, 301)
    expected = offline(stream.model, features)
    for sizes in ([1, 2], [97], [300, 0, 5]):
        assert_same_bits(in_chunks(stream, features, sizes), expected)


def test_single_frames_and_long_chunks_give_the_same_bits():
    """Past the 24 tiles that the convolutions hold at once, and one frame at a time."""
    stream = streamed("v2")
    features = features_for(stream, 1500)
    expected = offline(stream.model, features)
    for sizes in ([1500], [1, 1299, 7]):
        assert_same_bits(in_chunks(stream, features, sizes), expected)
    assert_same_bits(in_chunks(stream, features[:, :130], [1]), offline(stream.model, features[:, :130]))


def test_wide_layers_and_probabilities():
    """All 161 frequencies, hidden layers wide enough for the blocked paths of the matrix kernels."""
    model = make_model("mlperf", hidden_size=160, num_layers=2, output="softmax").double()
    features = torch.randn(161, 211)
    for dtype in (torch.float64, torch.float32):
        stream = StreamingDeepSpeech2(model.to(dtype))
        x = features.to(dtype)
        output = in_chunks(stream, x, [10, 33])
        assert_same_bits(output, offline(stream.model, x))
        assert output.min() >= 0


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_instruction_sets(isa):
    if os.environ.get("ASRKERN_CPU_ISA"):
        pytest.skip("runs in one instruction set")
    environment = {**os.environ, "ASRKERN_CPU_ISA": isa}
    command = [sys.executable, "-m", "asrkern"]
    if subprocess.run(command, env=environment, capture_output=True).returncode:
        pytest.skip(f"this CPU has no {isa}")
    tests = f"{__file__}::test_single_frames_and_long_chunks_give_the_same_bits"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    result = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


def test_streams_do_not_disturb_each_other():
    stream = streamed("v2 unidirectional")
    utterances = [features_for(stream, frames) for frames in (230, 310)]
    states, outputs = [stream.start() for _ in utterances], [[], []]
    for first in range(0, 310, 31):
        for utterance, state, output in zip(utterances, states, outputs, strict=True):
            output.append(stream.step(state, utterance[:, first : first + 31]))
    for utterance, state, output in zip(utterances, states, outputs, strict=True):
        output.append(stream.finish(state))
        assert_same_bits(torch.cat(output), offline(stream.model, utterance))


def test_finish_tells_what_the_tiles_still_hold_back():
    stream = streamed("v2 unidirectional")
    features = features_for(stream, 300)
    state = stream.start()
    so_far = torch.cat([stream.step(state, features[:, :170]), stream.finish(state)])
    # Windows reach 15 input frames ahead, at 2 for each output frame, and the lookahead 4 output frames.
    complete = (170 - 15 + 1) // 2 - 4
    assert state.frames + 10 < complete
    assert_close(so_far[:complete], offline(stream.model, features)[:complete], 1e-5)


def test_finish_leaves_the_stream_as_it_is():
    stream = streamed("v2 unidirectional")
    features = features_for(stream, 300)
    state = stream.start()
    first = stream.step(state, features[:, :170])
    assert state.frames == len(first) > 0
    ending = stream.finish(state)
    assert_same_bits(torch.cat([first, ending]), offline(stream.model, features[:, :170]))
    fork = copy.deepcopy(state)
    rest = [stream.step(state, features[:, 170:]), stream.finish(state)]
    assert_same_bits(torch.cat([first, *rest]), offline(stream.model, features))
    assert_same_bits(stream.finish(fork), ending)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_frames_have_no_output(layout):
    stream = streamed(layout)
    state = stream.start()
    assert stream.step(state, features_for(stream, 0)).shape == (0, 29)
    assert stream.finish(state).shape == (0, 29)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_latency_is_what_frames_wait_for(layout):
    """Fed one frame at a time, output frames come exactly when the tiles, the lookahead and the windows say."""
    stream = streamed(layout)
    config, centres = (
        stream.model.config,
        [kernel // 2 - pad[1] for kernel, pad in zip((11, 11), stream.model.config.conv_padding)],
    )
    features, state = features_for(stream, 1800), stream.start()
    waits = []
    for count in range(1, 1801):
        for frame in range(
            state.frames, state.frames + len(stream.step(state, features[:, count - 1 : count]))
        ):
            waits.append(count - 1 - (2 * (frame + centres[1]) + centres[0]))
    most = 1000 * (max(waits) * config.window_stride + config.window_size / 2)
    assert stream.latency.max_ms == pytest.approx(most)
    period = waits[:594]
    mean = 1000 * (sum(period) / 594 * config.window_stride + config.window_size / 2)
    assert stream.latency.mean_ms == pytest.approx(mean)


def test_low_latency_waits_for_windows_alone():
    """100 ms for the second convolution, 50 for the first, 10 for the spectrogram, less what ends of windows overlap."""
    model = DeepSpeech2.preset("mlperf", hidden_size=8, num_layers=1).eval()
    exact, quick = StreamingDeepSpeech2(model), StreamingDeepSpeech2(model, low_latency=True)
    assert exact.latency.mean_ms > 600
    assert quick.latency.mean_ms == quick.latency.max_ms == pytest.approx(160)
    padding = [pad[1] for pad in model.config.conv_padding]
    features, state, output = features_for(quick, 100), quick.start(), []
    for count in range(1, 101):
        output.append(quick.step(state, features[:, count - 1 : count]))
        first = max(0, (count + padding[0] - 11) // 2 + 1)  # frames whose windows are complete
        assert state.frames == max(0, first + padding[1] - 11 + 1)
    output.append(quick.finish(state))
    assert_close(torch.cat(output), offline(model, features), 1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", [[1], [10, 0, 3], [64]])
def test_low_latency_is_the_whole_within_rounding(layout, sizes):
    stream = StreamingDeepSpeech2(streamed(layout).model, low_latency=True)
    features = features_for(stream, 211)
    assert_close(in_chunks(stream, features, sizes), offline(stream.model, features), 1e-5)


def chain(
    transform: SpectrogramStream,
    stream: StreamingDeepSpeech2,
    decoder: CTCBeamDecoder,
    samples: Tensor,
    chunk: int,
):
    """From chunks of audio to hypotheses, and the partial texts on the way."""
    states = transform.start(), stream.start(), decoder.start()
    partials = []
    for first in range(0, len(samples), chunk):
        features = transform.step(states[0], samples[first : first + chunk])
        decoder.step(states[2], stream.step(states[1], features))
        partials.append(decoder.partial(states[2]))
    rest = [stream.step(states[1], transform.finish(states[0])), stream.finish(states[1])]
    decoder.step(states[2], torch.cat(rest))
    return decoder.finish(states[2]), partials


@pytest.mark.parametrize("normalization", ["running", (0.2, 0.4)])
def test_from_audio_to_text(data_dir, normalization):
    utterance = next(iter(read_manifest(data_dir / "lj" / "dev.jsonl")))
    samples = load_audio(utterance.audio_path)[: 16000 * 5]
    stream = StreamingDeepSpeech2(make_model("v2 unidirectional"))
    spectrogram = Spectrogram(normalization=normalization)
    lm = NGramLM.estimate(["THE CAT SAT ON THE MAT", "A CAT IS A CAT"], order=2, discount_fallback=True)
    decoder = CTCBeamDecoder(stream.model.config.labels, lm, beam_width=8, nbest=3)
    log_probs = offline(stream.model, spectrogram(samples))
    expected = decoder.decode(log_probs)
    assert expected[0].tokens, "the comparison needs some text"
    for chunk in (1600, 7919):
        found, partials = chain(SpectrogramStream(spectrogram), stream, decoder, samples, chunk)
        assert found == expected
        assert any(partial.hypothesis.tokens for partial in partials)
        for partial in partials:
            assert (
                found[0].tokens[: partial.stable_tokens] == partial.hypothesis.tokens[: partial.stable_tokens]
            )


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(
        ValueError, match="model: expected a unidirectional DeepSpeech2, received a bidirectional"
    ):
        StreamingDeepSpeech2(make_model("v2"))
    with pytest.raises(TypeError, match="model: expected a DeepSpeech2, received GRU"):
        StreamingDeepSpeech2(nn.GRU(2, 3))
    model = make_model("mlperf")
    with pytest.raises(ValueError, match="model: expected eval mode, received a model in training mode"):
        StreamingDeepSpeech2(model.train())
    stream = StreamingDeepSpeech2(model.eval())
    state = stream.start()
    model.train()
    for call in (
        stream.start,
        lambda: stream.step(state, torch.randn(161, 5)),
        lambda: stream.finish(state),
    ):
        with pytest.raises(ValueError, match="model: expected eval mode"):
            call()
    model.eval()
    model.conv.seq_module[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="conv: expected plain convolutions, received Conv2d"):
        StreamingDeepSpeech2(model)


def test_bad_chunks_are_refused_and_change_nothing():
    stream = streamed("mlperf")
    features, state = features_for(stream, 200), stream.start()
    output = [stream.step(state, features[:, :150])]
    for chunk in (features[1:], features[None], features[:, 0], features.long()):
        with pytest.raises(ValueError, match="features: expected"):
            stream.step(state, chunk)
    with pytest.raises(TypeError, match="features: expected a tensor, received list"):
        stream.step(state, [1.0])
    output += [stream.step(state, features[:, 150:]), stream.finish(state)]
    assert_same_bits(torch.cat(output), offline(stream.model, features))
