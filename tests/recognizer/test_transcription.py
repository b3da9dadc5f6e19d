"""Long recordings in windows, word times in the recording's own, streams, subtitles."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from asrkern.data import collate, make_detector, speech_segments
from asrkern.data.segmentation import split_at_pauses
from asrkern.models import DeepSpeech2
from asrkern.models.conv_front_end import FrameGeometry, frame_geometry
from asrkern.nn.mask_conv_stream import MaskConvStream
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.saved import Recognizer
from asrkern.recognizer.stream_transcription import StreamTranscriber
from asrkern.recognizer.subtitles import subtitles
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import CharacterTokenizer
from asrkern.recognizer.transcription import (
    FrameTimes,
    SpokenSegment,
    SpokenWord,
    Transcriber,
    Transcript,
    make_decoder,
    windowed_log_probs,
)
from tests.cli.tiny import make_deepspeech2, make_recognizer, speech, write_words
from tests.compare import assert_close
from tests.training.tones import RATE


def test_characters_of_texts_are_no_marks() -> None:
    """What other vocabularies have between words, or at their beginning, is text here, as greedy decoding writes it."""
    for labels in (("_", "a", "|", "▁b"), ("_", "a", "|", "▁b", " ")):
        tokenizer = CharacterTokenizer(labels, blank=0)
        tokens = list(range(1, len(labels)))
        log_probs = nn.functional.one_hot(torch.tensor([*tokens, 1]), len(labels)).mul(20.0).log_softmax(-1)
        [best] = make_decoder(tokenizer, None, 0.5, None, 5).decode(log_probs)
        assert best.text == tokenizer.decode([*tokens, 1]) == f"a|▁b{' ' * (len(labels) == 5)}a"


def forget(model: nn.Module) -> None:
    """Without memory: the update gates of all GRUs are shut, and the state reaches nothing else."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "weight_hh" in name:
                parameter.zero_()
            if "bias_hh" in name:
                size = len(parameter) // 3
                parameter[size : 2 * size] = -100


CONV = {
    "padded": {},
    "unpadded": {"conv_padding": [[0, 0], [0, 0]], "lookahead_context": None},
    "bidirectional": {"bidirectional": True, "lookahead_context": None},
}


@pytest.mark.parametrize("form", [*CONV, "vgg", "vgg stride 1"])
@pytest.mark.parametrize("seconds", [7.03, 9.3])
def test_windows_give_the_whole_where_the_context_is_bounded(form: str, seconds: float) -> None:
    if form in CONV:
        recognizer = make_deepspeech2(**CONV[form])
    else:
        recognizer = make_recognizer("ctc", time_stride=1 if "1" in form else 2)
    forget(recognizer.model)
    write_words(recognizer)
    features = recognizer.features.make()(speech(seconds))
    with torch.no_grad():
        whole = recognizer.model(features[None, None], torch.tensor([features.shape[1]]))[0][0]
    shares: list[float] = []
    for window, margin in ((300, 40), (257, 61)):
        windows = windowed_log_probs(recognizer.model, features, window, margin, shares.append)
        assert windows.shape == whole.shape
        assert_close(windows, whole, 1e-5)
        assert len(shares) > 3 and shares == sorted(shares) and shares[-1] == 1
        shares.clear()
    if form != "unpadded":
        # Without the context they differ: else this would show nothing.
        assert (windowed_log_probs(recognizer.model, features, 100, 0) - whole).abs().max() > 1e-3
    samples = speech(seconds)
    transcriber = Transcriber(recognizer, beam_width=8)
    expected = transcriber.recording(samples, 60)
    found = transcriber.recording(samples, 2.5, 0.5)
    assert found.text == expected.text and len(expected.words) > 1
    for word, wanted in zip(found.words, expected.words, strict=True):
        assert (word.text, word.start_seconds, word.end_seconds) == (
            wanted.text,
            wanted.start_seconds,
            wanted.end_seconds,
        )


def test_the_best_path_of_a_long_recording_is_that_of_its_windows() -> None:
    recognizer = make_deepspeech2()
    write_words(recognizer)
    samples, shares = speech(9.3), []
    features = recognizer.features.make()(samples)
    log_probs = windowed_log_probs(recognizer.model, features, 250, 50)
    expected = recognizer.task.transcripts(log_probs[None], torch.tensor([len(log_probs)]))[0]
    found = Transcriber(recognizer).recording(samples, 2.5, 0.5, shares.append)
    assert found == Transcript(expected) and " " in expected
    assert len(shares) > 3 and shares[-1] == 1
    assert Transcriber(recognizer).recording(samples).text == recognizer.predict_audio([samples])[0]


class Loud(nn.Module):
    """Writes A wherever it is loud, and a space wherever it is not: its word times are known."""

    def __init__(self, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Module()
        conv = nn.Conv2d(1, 1, (81, 5), (1, stride), (0, padding), bias=False)
        nn.init.constant_(conv.weight, 1 / (81 * 5))
        self.conv.seq_module = nn.Sequential(conv)

    @property
    def frame_geometry(self) -> FrameGeometry:
        return frame_geometry(self.conv.seq_module)

    def output_length(self, frames: int) -> int:
        conv = self.conv.seq_module[0]
        return max(0, (frames + 2 * conv.padding[1] - 5) // conv.stride[1] + 1)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        energy = self.conv.seq_module(features)[:, 0, 0]
        scores = torch.stack([energy - 10, torch.zeros_like(energy) - 10, 10 * energy, -10 * energy], -1)
        return scores.log_softmax(-1)[..., :4], lengths


@pytest.mark.parametrize(("stride", "padding"), [(2, 2), (3, 0), (1, 1)])
@pytest.mark.parametrize("window_seconds", [60.0, 3.0])
def test_word_times_are_the_recordings(stride: int, padding: int, window_seconds: float) -> None:
    spoken = [(1.0, 1.3), (2.95, 3.25), (5.5, 6.1), (8.0, 8.2)]
    samples = torch.zeros(9 * RATE)
    for start, end in spoken:
        part = slice(round(start * RATE), round(end * RATE))
        samples[part] = torch.randn(part.stop - part.start)
    recognizer = Recognizer(
        Loud(stride, padding),
        "loud",
        {},
        "ctc",
        CharacterTokenizer(("_", "B", "A", " "), blank=0),
        FeatureSettings(sample_rate=RATE),
        TextNormalization(),
    )
    found = Transcriber(recognizer, beam_width=4).recording(samples, window_seconds, 0.5)
    assert found.text == "A A A A"
    for word, (start, end) in zip(found.words, spoken, strict=True):
        # Half a window of the convolution, of the spectrogram, and an output frame.
        assert word.start_seconds == pytest.approx(start, abs=0.05)
        assert word.end_seconds == pytest.approx(end, abs=0.05)
        assert 0.9 < word.confidence <= 1


@pytest.mark.parametrize("form", CONV)
def test_frame_times_are_those_of_the_convolutions(form: str) -> None:
    recognizer = make_deepspeech2(**CONV[form])
    times, conv = FrameTimes.of(recognizer), MaskConvStream(recognizer.model.conv)
    for frame in (0, 1, 77):
        centre = 0.01 * conv.centre(frame)
        assert times.offset_seconds + frame * times.step_seconds == pytest.approx(centre)
        start, end = times.seconds(frame, frame + 1, 10.0)
        assert (start, end) == (pytest.approx(max(0, centre - 0.01)), pytest.approx(centre + 0.01))


def test_attention_models_read_pieces() -> None:
    recognizer = make_recognizer("attention")
    samples = speech(7)
    pieces = split_at_pauses(samples, RATE, 3.0)
    assert len(pieces) > 2
    expected = [text for text in recognizer.predict_audio(pieces) if text]
    found = Transcriber(recognizer).recording(samples, 3.0, 0.0)
    assert found == Transcript(" ".join(expected), None, None)


@pytest.mark.parametrize("task", ["ctc", "best path", "attention"])
def test_segments_are_transcribed_each_for_itself(task: str) -> None:
    recognizer = make_recognizer("attention" if task == "attention" else "ctc")
    if task == "ctc":
        write_words(recognizer)
    transcriber = Transcriber(recognizer, beam_width=8 if task == "ctc" else None)
    silence = 1e-4 * torch.randn(3 * RATE)
    # More than the model reads at once; the last one ends while it is loud.
    parts = [part for seed in range(16) for part in (silence, speech(3 + seed, seed))]
    samples, shares = torch.cat([torch.zeros(2 * RATE), *parts]), []
    found = transcriber.recording(samples, 30, 3, shares.append, make_detector("energy", RATE))
    expected = list(speech_segments([samples], make_detector("energy", RATE)))
    assert len(expected) == len(found.segments) == 16
    words = []
    for segment, heard in zip(expected, found.segments, strict=True):
        alone = transcriber.recording(segment.samples)
        start = segment.start / RATE
        assert heard == SpokenSegment(alone.text, start, start + len(segment.samples) / RATE)
        words += [
            replace(word, start_seconds=start + word.start_seconds, end_seconds=start + word.end_seconds)
            for word in alone.words or ()
        ]
    assert found.text == " ".join(heard.text for heard in found.segments if heard.text) != ""
    assert found.words == (words if task == "ctc" else None) and (task != "ctc" or len(words) > 16)
    assert len(shares) > 3 and shares == sorted(shares) and shares[-1] == 1
    assert found.segments[-1].end_seconds == len(samples) / RATE


def test_what_is_not_cut() -> None:
    samples, energy = speech(6), make_detector("energy", RATE)
    for task in ("ctc", "attention", "classify"):
        transcriber = Transcriber(make_recognizer(task))
        assert transcriber.recording(samples, 6.5, detector=energy) == transcriber.recording(samples, 6.5)
    # A classifier reads all of it.
    assert transcriber.recording(samples, 6.5) == transcriber.recording(samples, 1.0, 0.1, detector=energy)
    silent = Transcriber(make_recognizer("ctc"), beam_width=3).recording(
        torch.zeros(9 * RATE), 7, detector=energy
    )
    assert silent == Transcript("", [], segments=[])
    with pytest.raises(ValueError, match="detector: expected one for 8000 Hz, received one for 16000"):
        Transcriber(make_recognizer("ctc")).recording(samples, 5, 1, detector=make_detector("energy", 16000))


def test_pieces_end_where_it_is_quiet() -> None:
    samples = torch.randn(10 * RATE)
    for quiet in (2.5, 5.2):
        samples[round(quiet * RATE) : round((quiet + 0.15) * RATE)] *= 0.01
    pieces = split_at_pauses(samples, RATE, 3.0)
    assert torch.equal(torch.cat(pieces), samples)
    assert all(0.7 * RATE < len(piece) <= 3 * RATE for piece in pieces)
    ends = torch.tensor([len(piece) for piece in pieces]).cumsum(0) / RATE
    for quiet in (2.5, 5.2):
        assert any(quiet < end < quiet + 0.15 for end in ends.tolist())
    assert [len(piece) for piece in split_at_pauses(samples[:2000], RATE, 3.0)] == [2000]


@pytest.mark.parametrize("chunk", [333, 1600, 100_000])
def test_a_stream_says_what_the_whole_does(chunk: int) -> None:
    recognizer = make_deepspeech2()
    write_words(recognizer)
    transcriber = Transcriber(recognizer, beam_width=8)
    samples = speech(4)
    expected = transcriber.recording(samples)
    assert len(expected.words) > 1
    listener = StreamTranscriber(transcriber)
    assert not listener.normalization_differs
    heard = list(listener(samples.split(chunk)))
    assert heard[-1].transcript == expected and heard[-1].tail == ""
    assert len(heard) == -(-len(samples) // chunk) + 1
    assert all(before.transcript is None for before in heard[:-1])
    # Each word once, and none of them changed.
    assert [word for news in heard for word in news.words] == expected.words
    assert " ".join(news.text for news in heard if news.text) == expected.text
    assert chunk > 2000 or sum(bool(news.words) for news in heard) > 1
    assert all(news.text == " ".join(word.text for word in news.words) for news in heard)


def test_what_cannot_be_streamed() -> None:
    with pytest.raises(ValueError, match="expected a unidirectional DeepSpeech2 for a stream, received vgg"):
        StreamTranscriber(Transcriber(make_recognizer("ctc"), beam_width=8))
    both = make_deepspeech2(bidirectional=True, lookahead_context=None)
    with pytest.raises(ValueError, match="received a bidirectional one"):
        StreamTranscriber(Transcriber(both, beam_width=8))
    usual = StreamTranscriber(Transcriber(make_deepspeech2(normalization="utterance"), beam_width=8))
    assert usual.normalization_differs
    assert isinstance(usual._model.model, DeepSpeech2)


def test_what_cannot_be_transcribed() -> None:
    transcriber = Transcriber(make_deepspeech2(conv_padding=[[0, 0], [0, 0]]), beam_width=8)
    with pytest.raises(ValueError, match="received 21 frames, too few for the model"):
        transcriber.recording(speech(0.2))
    with pytest.raises(ValueError, match="expected more than half a window"):
        transcriber.recording(torch.zeros(9))
    with pytest.raises(ValueError, match="window_seconds: expected more than two margins"):
        transcriber.recording(speech(1), 2.0, 1.0)
    stored = make_recognizer("ctc")
    stored.features = FeatureSettings(kind="stored", bins=12)
    with pytest.raises(ValueError, match="expected features of audio, received 'stored'"):
        Transcriber(stored, beam_width=8).recording(speech(1))


def test_subtitles() -> None:
    words = [SpokenWord(f"word{i:02}", 0.5 * i, 0.5 * i + 0.4, 1.0) for i in range(20)]
    words += [SpokenWord("late", 3600 + 59.9996, 3661.5, 1.0)]
    text = subtitles(Transcript(" ".join(word.text for word in words), words))
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    assert [block[0] for block in blocks] == list("123")
    assert blocks[0][1] == "00:00:00,000 --> 00:00:05,900"
    assert blocks[2][1:] == ["01:01:00,000 --> 01:01:01,500", "late"]
    for block in blocks:
        assert len(block) <= 4 and all(len(line) <= 42 for line in block[2:])
    assert re.findall(r"word\d\d|late", text) == [word.text for word in words]
    letters = [SpokenWord(letter, i, i + 1, 1.0) for i, letter in enumerate("안녕하세요")]
    assert "\n안녕하세요\n" in subtitles(Transcript("안녕하세요", letters))
    assert subtitles(Transcript("", [])) == ""
    with pytest.raises(ValueError, match="expected words with times, received text alone"):
        subtitles(Transcript("text"))


@pytest.mark.parametrize("task", ["ctc", "classify"])
def test_input_goes_to_where_the_model_is(task: str) -> None:
    recognizer = make_recognizer(task)
    recognizer.model.to("meta")
    devices: list[str] = []

    def stop(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], *more: object) -> None:
        devices.extend(argument.device.type for argument in arguments[:2])
        raise InterruptedError

    for module in recognizer.model.modules():
        module.register_forward_pre_hook(stop)
    batch = collate([recognizer.features.make()(speech(2))])
    calls = [lambda: recognizer.predict(*batch), lambda: Transcriber(recognizer)(*batch)]
    calls.append(lambda: Transcriber(recognizer).recording(speech(2)))
    for call in calls:
        with pytest.raises(InterruptedError):
            call()
    assert len(devices) >= len(calls) and set(devices) == {"meta"}


@pytest.mark.parametrize("beam_width", [None, 8])
def test_recordings_together_are_those_alone(beam_width: int | None) -> None:
    recognizer = make_recognizer("ctc")
    write_words(recognizer)
    transcriber = Transcriber(recognizer, beam_width=beam_width)
    # One is longer than a window.
    samples = [speech(seconds, seed) for seed, seconds in enumerate((1.3, 0.4, 2.9, 0.9, 2.0))]
    together = transcriber.recordings(samples, 2.5, 0.5)
    assert together == [transcriber.recording(each, 2.5, 0.5) for each in samples]
    assert len({found.text for found in together}) == len(samples)
    with pytest.raises(ValueError, match="expected more than half a window"):
        transcriber.recordings([*samples, torch.zeros(9)])


def test_streams_side_by_side_do_not_meet() -> None:
    transcriber = Transcriber(make_deepspeech2(), beam_width=8)
    listener = StreamTranscriber(transcriber)
    samples = [speech(2, seed) for seed in range(3)]
    states = [listener.start() for _ in samples]
    for chunks in zip(*(each.split(1700) for each in samples)):
        for state, chunk in zip(states, chunks):
            listener.step(state, chunk)
    for state, each in zip(states, samples):
        assert listener.finish(state).transcript == transcriber.recording(each)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_a_copy_of_a_stream_goes_on_by_itself(way: Any) -> None:
    transcriber = Transcriber(make_deepspeech2(), beam_width=8)
    listener = StreamTranscriber(transcriber)
    first, *rest = speech(3).split(9000)
    state = listener.start()
    listener.step(state, first)
    other = way(state)
    for chunk in rest:
        listener.step(other, -chunk.flip(0))
        listener.step(state, chunk)
    assert listener.finish(state).transcript == transcriber.recording(speech(3))
    turned = torch.cat([first, *(-chunk.flip(0) for chunk in rest)])
    assert listener.finish(other).transcript == transcriber.recording(turned)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -3e38, 1e10])
def test_a_chunk_that_is_refused_leaves_the_stream_as_it_is(value: float) -> None:
    transcriber = Transcriber(make_deepspeech2(), beam_width=8)
    listener = StreamTranscriber(transcriber)
    state = listener.start()
    for chunk in speech(3).split(5000):
        spoiled = chunk.clone()
        spoiled[len(chunk) // 2] = value
        with pytest.raises(ValueError, match="chunk: expected finite samples of at most"):
            listener.step(state, spoiled)
        listener.step(state, chunk)
    assert listener.finish(state).transcript == transcriber.recording(speech(3))


def test_other_options_of_a_search() -> None:
    transcriber = Transcriber(make_recognizer("ctc"), beam_width=8)
    narrow = transcriber.replace(beam_width=1)
    assert narrow.decoder is not transcriber.decoder and narrow.recognizer is transcriber.recognizer
    assert narrow.recording(speech(2)) == Transcriber(transcriber.recognizer, beam_width=1).recording(
        speech(2)
    )
    with pytest.raises(ValueError, match="hotwords: expected none, since there is no beam search"):
        Transcriber(make_recognizer("attention")).replace(hotwords=["a"])


def test_paths_arrays_and_lists_are_transcribed(tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    samples = speech(2)
    soundfile.write(tmp_path / "a.wav", samples.numpy(), RATE, subtype="FLOAT")
    path = tmp_path / "a.wav"
    expected = Transcriber(recognizer, beam_width=100).recording(samples)
    for audio in (str(path), path, samples, samples.numpy(), samples.numpy().astype(np.float64)):
        assert recognizer.transcribe(audio) == expected
    assert recognizer.transcribe([path, samples[:9000]]) == [expected, recognizer.transcribe(samples[:9000])]
    narrow = Transcriber(recognizer, beam_width=2, hotwords=["AB"]).recording(samples)
    assert recognizer.transcribe(path, beam_width=2, hotwords=["AB"]) == narrow
    assert recognizer.transcribe(path, beam_width=None).words is None
    assert make_recognizer("attention").transcribe(path).words is None
    with pytest.raises(
        TypeError, match="audio: expected a path, a tensor or an array, or a list of these, received int"
    ):
        recognizer.transcribe([3])
    with pytest.raises(ValueError, match=r"received torch\.int16"):
        recognizer.transcribe(samples.to(torch.int16))


def test_a_recognizer_hears_chunks() -> None:
    recognizer, samples = make_deepspeech2(), speech(2)
    *_, last = recognizer.stream(beam_width=8)(samples.split(999))
    assert last.transcript == recognizer.transcribe(samples, beam_width=8)
    with pytest.raises(ValueError, match="expected a unidirectional DeepSpeech2"):
        make_recognizer("ctc").stream()
