"""What a trained model hears in speech while it arrives."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrkern._decoder import CtcBeamState
from asrkern.data import SpectrogramStream
from asrkern.data.feature_stream import SpectrogramState
from asrkern.data.features import check_samples
from asrkern.models.registry import find
from asrkern.models.streaming import StreamState
from asrkern.recognizer.onnx_model import OnnxCTC
from asrkern.recognizer.transcription import FrameTimes, SpokenWord, Transcriber, Transcript

# What 32-bit integers hold. A spectrogram's squares of far larger samples are infinite.
_LARGEST = 2.0**31


class Heard(NamedTuple):
    """What is new after some seconds of audio.

    Attributes:
        seconds: of audio so far.
        words: words that no later audio can change. Each is told once; at the stream's end all that are left are told.
        text: the text of these words.
        tail: the best text so far behind all words told, which may still change; "" at the stream's end.
        transcript: of the whole stream, at its end; None before.
    """

    seconds: float
    words: list[SpokenWord]
    text: str
    tail: str
    transcript: Transcript | None = None


@dataclass
class ListeningState:
    """Where one stream is; can be pickled and copied.

    Attributes:
        features, model, search: where its parts are.
        samples: how many have come.
        told: how many words have been told.
    """

    features: SpectrogramState
    model: StreamState
    search: CtcBeamState
    samples: int = 0
    told: int = 0

    def __copy__(self) -> ListeningState:
        """With parts of its own: they go on in place."""
        return ListeningState(
            copy.copy(self.features), copy.copy(self.model), copy.copy(self.search), self.samples, self.told
        )


class StreamTranscriber:
    """A model and its beam search over chunks of audio, of one stream or of several, each with a state of its own.

    If the model's features are normalised by whole utterances, which a stream does not have, they are normalised by the
    frames so far, and ``normalization_differs`` is True. Else the transcript at the end is that of the whole recording.

    Args:
        transcriber: a :class:`Transcriber` with a beam search.
        low_latency: words are heard sooner, by half a second with DeepSpeech2's convolutions; what the search reads is
            that of the whole recording to within rounding, not to the bit.

    Raises:
        ValueError: nothing runs this model over chunks (a unidirectional DeepSpeech2 can be run), or there is no beam
            search.
    """

    def __init__(self, transcriber: Transcriber, *, low_latency: bool = False) -> None:
        recognizer = transcriber.recognizer
        stream = None if isinstance(recognizer.model, OnnxCTC) else find(recognizer.model_name).stream
        if stream is None:
            raise ValueError(
                f"model: expected a unidirectional DeepSpeech2 for a stream, received {recognizer.model_name}"
            )
        if transcriber.decoder is None:
            raise ValueError("transcriber: expected a beam_width, received None")
        settings = recognizer.features
        self.normalization_differs = settings.normalization == "utterance"
        if self.normalization_differs:
            settings = settings.model_copy(update={"normalization": "running"})
        self._decoder = transcriber.decoder
        self._transcriber, self._sample_rate = transcriber, settings.sample_rate
        spectrogram: Any = settings.make()
        self._features = SpectrogramStream(spectrogram)
        self._model = stream(recognizer.model, low_latency=low_latency)
        self._times = FrameTimes.of(recognizer)

    def __call__(self, chunks: Iterable[Tensor]) -> Iterator[Heard]:
        """Yield what is heard after each chunk, and once more at the end.

        Args:
            chunks: [samples] float32 each, at ``features.sample_rate``, of any lengths.

        Raises:
            ValueError: a chunk is no tensor of this kind, or has samples that are NaN or beyond 2^31.
        """
        state = self.start()
        for chunk in chunks:
            yield self.step(state, chunk)
        yield self.finish(state)

    def start(self) -> ListeningState:
        """The state before a stream."""
        decoder = self._decoder
        return ListeningState(self._features.start(), self._model.start(), decoder.start())

    def step(self, state: ListeningState, chunk: Tensor) -> Heard:
        """What is heard after the next chunk.

        Args:
            state: of :meth:`start`; it goes on. If the chunk is refused, it stays as it is.
            chunk: [samples] float32, at ``features.sample_rate``, of any length.

        Raises:
            ValueError: the chunk is no tensor of this kind, or has samples that are NaN or beyond 2^31.
        """
        check_samples(chunk)
        if len(chunk) and not chunk.abs().max() <= _LARGEST:
            raise ValueError(
                "chunk: expected finite samples of at most 2^31, received NaN, infinity or larger ones"
            )
        decoder = self._decoder
        decoder.step(state.search, self._model.step(state.model, self._features.step(state.features, chunk)))
        state.samples += len(chunk)
        found = decoder.partial(state.search, after=state.told)
        state.told = found.word_count
        seconds = state.samples / self._sample_rate
        words = [self._times.spoken(word, seconds) for word in found.words]
        return Heard(seconds, words, decoder.join(found.words), found.tail)

    def finish(self, state: ListeningState) -> Heard:
        """The rest of a stream that ends here, and its transcript.

        Args:
            state: the stream's; it cannot go on.
        """
        decoder = self._decoder
        ending = [
            self._model.step(state.model, self._features.finish(state.features)),
            self._model.finish(state.model),
        ]
        decoder.step(state.search, torch.cat(ending))
        seconds = state.samples / self._sample_rate
        best = decoder.finish(state.search)[0]
        transcript = self._transcriber.timed(best, seconds)
        words = (transcript.words or [])[state.told :]
        return Heard(seconds, words, decoder.join(best.words[state.told :]), "", transcript)
