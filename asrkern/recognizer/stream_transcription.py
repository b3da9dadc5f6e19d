"""What a trained model hears in speech while it arrives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrkern.data import SpectrogramStream
from asrkern.models.registry import find
from asrkern.recognizer.onnx_model import OnnxCTC
from asrkern.recognizer.transcription import FrameTimes, SpokenWord, Transcriber, Transcript


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


class StreamTranscriber:
    """A model and its beam search over chunks of audio.

    If the model's features are normalised by whole utterances, which a stream does not have, they are normalised by the
    frames so far, and ``normalization_differs`` is True. Else the transcript at the end is that of the whole recording.

    Args:
        transcriber: a :class:`Transcriber` with a beam search.

    Raises:
        ValueError: nothing runs this model over chunks (a unidirectional DeepSpeech2 can be run), or there is no beam
            search.
    """

    def __init__(self, transcriber: Transcriber) -> None:
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
        self._model = stream(recognizer.model)
        self._times = FrameTimes.of(recognizer)

    def __call__(self, chunks: Iterable[Tensor]) -> Iterator[Heard]:
        """Yield what is heard after each chunk, and once more at the end.

        Args:
            chunks: [samples] float32 each, at ``features.sample_rate``, of any lengths.

        Raises:
            ValueError: a chunk is no tensor of this kind, or has values that are no numbers.
        """
        decoder = self._decoder
        features, model, search = self._features.start(), self._model.start(), decoder.start()
        samples = told = 0
        for chunk in chunks:
            samples += len(chunk)
            decoder.step(search, self._model.step(model, self._features.step(features, chunk)))
            found = decoder.partial(search, after=told)
            told = found.word_count
            seconds = samples / self._sample_rate
            words = [self._times.spoken(word, seconds) for word in found.words]
            yield Heard(seconds, words, decoder.join(found.words), found.tail)
        ending = [self._model.step(model, self._features.finish(features)), self._model.finish(model)]
        decoder.step(search, torch.cat(ending))
        seconds = samples / self._sample_rate
        best = decoder.finish(search)[0]
        transcript = self._transcriber.timed(best, seconds)
        yield Heard(seconds, (transcript.words or [])[told:], decoder.join(best.words[told:]), "", transcript)
