"""What a trained model hears: texts, words with times and confidences, classes; also in long recordings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from asrkern._lengths import Lengths, as_lengths
from asrkern.data import Detector, Segment, collate, speech_segments
from asrkern.data.features import check_samples
from asrkern.data.segmentation import split_at_pauses
from asrkern.decoder import CTCBeamDecoder, Hypothesis, NGramLM, Word
from asrkern.recognizer.onnx_model import OnnxCTC
from asrkern.recognizer.saved import Recognizer, device_of
from asrkern.recognizer.tokenizer import Tokenizer

T = TypeVar("T")

# Of a recording that is cut at pauses: how much the detector reads at once, and the model.
_DETECTED_FRAMES, _BATCH_SECONDS = 512, 60


@dataclass(frozen=True)
class SpokenWord:
    """A word and where it is in the recording.

    text: the word; start_seconds, end_seconds: where it begins and ends; confidence: its posterior probability within the
    beam.
    """

    text: str
    start_seconds: float
    end_seconds: float
    confidence: float


@dataclass(frozen=True)
class SpokenSegment:
    """What was said between two pauses.

    text: of the segment; start_seconds, end_seconds: where it begins and ends in the recording.
    """

    text: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        text: the transcript, or the class.
        words: its words; None if the model tells no times.
        probability: of the class; None for transcripts.
        segments: where a long recording was cut at pauses, its parts; else None.
    """

    text: str
    words: list[SpokenWord] | None = None
    probability: float | None = None
    segments: list[SpokenSegment] | None = None


class Transcriber:
    """A trained model together with a search.

    Args:
        recognizer: of :func:`asrkern.load`. The model runs on its device.
        lm: language model, for CTC models.
        alpha, beta, lm_case, unit: see :class:`asrkern.decoder.CTCBeamDecoder`.
        beam_width: of the search. None: no search but the best path (CTC) or the most probable token at each step
            (attention), as in training; with a language model or hotwords 100.
        hotwords, hotword_weight: for CTC models, see :class:`asrkern.decoder.CTCBeamDecoder`.

    Raises:
        ValueError: an option out of range, or one that this kind of model does not have.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        lm: NGramLM | None = None,
        *,
        alpha: float = 0.5,
        beta: float | None = None,
        beam_width: int | None = None,
        lm_case: str | None = None,
        unit: str | None = None,
        hotwords: Iterable[str] | Mapping[str, float] | None = None,
        hotword_weight: float = 10.0,
    ) -> None:
        task = recognizer.task_name
        for name, value in (("lm", lm), ("hotwords", hotwords)):
            if value is not None and task != "ctc":
                raise ValueError(
                    f"{name}: expected none, since it is for CTC models and this task is {task!r}"
                )
        if beam_width is not None and (task == "classify" or beam_width < 1):
            expected = "none, since this model is a classifier" if task == "classify" else "at least 1"
            raise ValueError(f"beam_width: expected {expected}, received {beam_width}")
        self.recognizer, self.beam_width = recognizer, beam_width
        self.decoder = None
        if any(value is not None for value in (lm, hotwords, beam_width)) and task == "ctc":
            self.decoder = make_decoder(
                recognizer.tokenizer, lm, alpha, beta, beam_width or 100, lm_case, unit
            )
            if hotwords is not None:
                self.decoder = self.decoder.replace(hotwords=hotwords, hotword_weight=hotword_weight)
        recognizer.model.eval()

    @torch.no_grad()
    def __call__(self, features: Tensor, lengths: Lengths) -> list[Transcript]:
        """Transcripts of a batch.

        Args:
            features: [N, 1, F, T] as ``recognizer.features`` makes them, on any device.
            lengths: integers [N], frames of each.

        Raises:
            TypeError: lengths are not integers.
            ValueError: the batch does not fit the model, or a beam search meets output that is not a number.
        """
        recognizer = self.recognizer
        lengths = as_lengths("lengths", lengths, len(features))
        features, lengths = features.to(recognizer.device), lengths.to(recognizer.device)
        if recognizer.task_name == "classify":
            return self._classes(recognizer.model(features, lengths))
        if self.decoder is not None:
            log_probs, frames = recognizer.model(features, lengths)
            found = self.decoder.decode(log_probs, frames)
            return [
                self.timed(best, length * recognizer.features.hop_seconds)
                for [best, *_], length in zip(found, lengths.tolist(), strict=True)
            ]
        if recognizer.task_name == "attention" and self.beam_width is not None:
            return [
                self._beam_search(row[None, ..., :frames]) for row, frames in zip(features, lengths.tolist())
            ]
        return [Transcript(text) for text in recognizer.predict(features, lengths)]

    def recording(
        self,
        samples: Tensor,
        window_seconds: float = 30.0,
        margin_seconds: float = 3.0,
        progress: Callable[[float], None] = lambda share: None,
        detector: Detector | None = None,
    ) -> Transcript:
        """The transcript of a recording of any length.

        With a detector of speech, a recording longer than a window is cut at pauses into segments of at most a window,
        which are transcribed each for itself, several at once.

        Without one, a CTC model reads it in overlapping windows. Their log-probabilities, without the margins, are
        decoded as one; features are those of the whole. An attention model reads pieces that end where it is quietest.
        A classifier reads it whole in any case.

        Args:
            samples: [samples] at ``recognizer.features.sample_rate``.
            window_seconds: how much the model reads at once.
            margin_seconds: how much of a window, at each end, is only context.
            progress: called with the share that is done, 0 to 1.
            detector: of :func:`asrkern.data.make_detector`.

        Raises:
            TypeError: samples are no tensor.
            ValueError: too short for the model, a window not longer than its margins, or a detector for another rate.
        """
        recognizer, settings = self.recognizer, self.recognizer.features
        check_window(window_seconds, margin_seconds)
        if settings.kind == "stored":
            raise ValueError(
                "features.kind: expected features of audio, received 'stored': this model reads features from files, "
                "of which asrkern does not know how they are made"
            )
        extract = settings.make()
        check_samples(samples)
        longer = len(samples) > window_seconds * settings.sample_rate
        if detector is not None and longer and recognizer.task_name != "classify":
            return self._in_segments(samples, detector, window_seconds, progress)
        if recognizer.task_name == "attention":
            pieces = split_at_pauses(samples, settings.sample_rate, window_seconds)
            texts = []
            for done, piece in enumerate(pieces, 1):
                texts.append(self._checked(extract(piece)).text)
                progress(done / len(pieces))
            return Transcript(" ".join(filter(None, texts)))
        seconds, features = len(samples) / settings.sample_rate, extract(samples)
        del samples  # An hour of them has 230 MB, which are freed if the caller keeps none.
        if recognizer.task_name != "ctc":
            return self._checked(features)
        window, margin = (round(each / settings.hop_seconds) for each in (window_seconds, margin_seconds))
        if self.decoder is None:
            log_probs = windowed_log_probs(recognizer.model, features, window, margin, progress)
            lengths = torch.tensor([len(log_probs)], device=log_probs.device)
            task: Any = recognizer.task
            return Transcript(task.transcripts(log_probs[None], lengths)[0])
        search = self.decoder.start()
        for log_probs in _each_window(recognizer.model, features, window, margin, progress):
            self.decoder.step(search, log_probs)
        return self.timed(self.decoder.finish(search)[0], seconds)

    def _in_segments(
        self,
        samples: Tensor,
        detector: Detector,
        longest_seconds: float,
        progress: Callable[[float], None],
    ) -> Transcript:
        rate, total = self.recognizer.features.sample_rate, len(samples)
        if detector.sample_rate != rate:
            raise ValueError(f"detector: expected one for {rate} Hz, received one for {detector.sample_rate}")
        chunks = samples.split(_DETECTED_FRAMES * detector.frame_samples)
        spoken: list[SpokenSegment] = []
        words: list[SpokenWord] = []
        segments = speech_segments(chunks, detector, longest_seconds)
        for batch in _ahead(_batches(segments, _BATCH_SECONDS * rate)):
            for segment, found in zip(batch, self._of_segments(batch), strict=True):
                start, seconds = segment.start / rate, len(segment.samples) / rate
                spoken.append(SpokenSegment(found.text, start, start + seconds))
                for word in found.words or ():
                    begin, end = start + word.start_seconds, start + word.end_seconds
                    words.append(replace(word, start_seconds=begin, end_seconds=end))
            progress((batch[-1].start + len(batch[-1].samples)) / total)
        progress(1.0)
        # Without a space words are single characters, as in subtitles.
        tokenizer = self.recognizer.tokenizer
        joiner = " " if tokenizer.unit == "piece" or " " in tokenizer.labels else ""
        text = joiner.join(filter(None, (segment.text for segment in spoken)))
        return Transcript(text, None if self.decoder is None else words, segments=spoken)

    def _of_segments(self, segments: Sequence[Segment]) -> list[Transcript]:
        """Each one's transcript; an empty one where the model cannot read so little."""
        extract, settings = self.recognizer.features.make(), self.recognizer.features
        model: Any = self.recognizer.model
        features = [extract(segment.samples) for segment in segments]
        readable = [model.output_length(each.shape[1]) > 0 for each in features]
        seconds = [len(segment.samples) / settings.sample_rate for segment in segments]
        found = iter(self.batch(compress(features, readable), compress(seconds, readable)))
        empty = Transcript("", None if self.decoder is None else [])
        return [next(found) if each else empty for each in readable]

    def batch(self, features: Iterable[Tensor], seconds: Iterable[float]) -> list[Transcript]:
        """What :meth:`recording` says of short recordings, read together.

        Args:
            features: [F, T] of each, as ``recognizer.features`` makes them.
            seconds: length of each recording.

        Raises:
            ValueError: features that do not fit the model.
        """
        features = list(features)
        found = self(*collate(features)) if features else []
        # The last frame may reach beyond the recording.
        return [_within(each, length) for each, length in zip(found, seconds, strict=True)]

    @torch.no_grad()
    def recordings(
        self, samples: Sequence[Tensor], window_seconds: float = 30.0, margin_seconds: float = 3.0
    ) -> list[Transcript]:
        """The transcripts of several recordings, each as :meth:`recording` gives it.

        A CTC model reads those that fit into a window together. On the CPU the result is the same, to the last bit. A
        model in an ONNX file, whose rows may depend on their batch, reads one after another.

        Args:
            samples: [samples] each, at ``recognizer.features.sample_rate``.
            window_seconds, margin_seconds: as of :meth:`recording`.

        Raises:
            TypeError, ValueError: as :meth:`recording`, of any of them.
        """
        check_window(window_seconds, margin_seconds)
        recognizer, settings = self.recognizer, self.recognizer.features
        longest = round(window_seconds * settings.sample_rate)
        alone = recognizer.task_name != "ctc" or isinstance(recognizer.model, OnnxCTC)
        together = [] if alone else [i for i, each in enumerate(samples) if len(each) <= longest]
        found: dict[int, Transcript] = {}
        if len(together) > 1 and settings.kind != "stored":
            extract = settings.make()
            features = [extract(samples[i]) for i in together]
            for each in features:
                check_frames(recognizer.model, each.shape[1])
            seconds = [len(samples[i]) / settings.sample_rate for i in together]
            found = dict(zip(together, self.batch(features, seconds), strict=True))
        return [
            found[i] if i in found else self.recording(each, window_seconds, margin_seconds)
            for i, each in enumerate(samples)
        ]

    def replace(self, **options: Any) -> Transcriber:
        """This transcriber with other options of its search, as :meth:`asrkern.decoder.CTCBeamDecoder.replace` takes them.

        Args:
            options: hotwords, hotword_weight, beam_width and others.

        Raises:
            TypeError: another option.
            ValueError: an option out of its range, or there is no beam search.
        """
        if self.decoder is None:
            raise ValueError(f"{', '.join(options)}: expected none, since there is no beam search")
        other = copy.copy(self)
        other.decoder = self.decoder.replace(**options)
        return other

    def timed(self, found: Hypothesis, duration_seconds: float) -> Transcript:
        """A hypothesis ``found`` by the decoder; words get times in seconds, within a recording of ``duration_seconds``."""
        times = FrameTimes.of(self.recognizer)
        return Transcript(found.text, [times.spoken(word, duration_seconds) for word in found.words])

    def _checked(self, features: Tensor) -> Transcript:
        check_frames(self.recognizer.model, features.shape[1])
        return self(*collate([features]))[0]

    def _beam_search(self, features: Tensor) -> Transcript:
        """Search one utterance [1, 1, F, T], alone, since the limit of the search depends on its length."""
        frames, recognizer = features.shape[-1], self.recognizer
        task: Any = recognizer.task
        model: Any = recognizer.model
        limit = task.max_tokens(frames)
        [[best, *_]] = model.beam_search(
            features, torch.tensor([frames], device=features.device), self.beam_width, max_length=limit + 2
        )
        return Transcript(recognizer.tokenizer.decode(best.tokens[:limit]))

    def _classes(self, logits: Tensor) -> list[Transcript]:
        best, classes = logits.softmax(-1).max(-1)
        decode = self.recognizer.tokenizer.decode
        return [Transcript(decode([c]), None, p) for c, p in zip(classes.tolist(), best.tolist())]


class FrameTimes(NamedTuple):
    """The place of a CTC model's output frames in the recording: frame t is centred on offset + t · step, in seconds."""

    step_seconds: float
    offset_seconds: float

    @classmethod
    def of(cls, recognizer: Recognizer) -> FrameTimes:
        """The frame times of a recognizer's model and features."""
        model: Any = recognizer.model
        geometry, features = model.frame_geometry, recognizer.features
        hop = features.hop_seconds
        return cls(geometry.step * hop, geometry.offset * hop + features.first_seconds)

    def seconds(self, start: float, end: float, duration_seconds: float) -> tuple[float, float]:
        """Begin and end of frames ``start`` to ``end - 1``, or of parts of frames, in seconds within the recording."""
        edges = (self.offset_seconds + (frame - 0.5) * self.step_seconds for frame in (start, end))
        first, last = (min(max(edge, 0.0), duration_seconds) for edge in edges)
        return first, last

    def spoken(self, word: Word, duration_seconds: float) -> SpokenWord:
        """A word of the decoder with its times in seconds within a recording of that length."""
        return SpokenWord(
            word.text, *self.seconds(word.start, word.end, duration_seconds), confidence=word.confidence
        )


def _within(transcript: Transcript, seconds: float) -> Transcript:
    """The transcript, its words within so many seconds."""
    if not transcript.words:
        return transcript
    words = [
        replace(
            word, start_seconds=min(word.start_seconds, seconds), end_seconds=min(word.end_seconds, seconds)
        )
        for word in transcript.words
    ]
    return replace(transcript, words=words)


def make_decoder(
    tokenizer: Tokenizer,
    lm: NGramLM | None,
    alpha: float,
    beta: float | None,
    beam_width: int,
    lm_case: str | None = None,
    unit: str | None = None,
) -> CTCBeamDecoder:
    """A beam search for a tokenizer's labels."""
    options: dict[str, Any] = {
        "alpha": alpha,
        "beta": beta,
        "beam_width": beam_width,
        "lm_case": lm_case,
        "unit": unit,
    }
    # In texts of characters only " " is a space.
    space = None if tokenizer.unit == "piece" else " " if " " in tokenizer.labels else ""
    return CTCBeamDecoder(tokenizer.labels, lm, blank=tokenizer.blank, space=space, **options)


def check_window(window_seconds: float, margin_seconds: float) -> None:
    """Raise ValueError unless more of a window is read than its margins."""
    if not window_seconds > 2 * margin_seconds >= 0:
        raise ValueError(
            f"window_seconds: expected more than two margins of {margin_seconds} s, received {window_seconds}"
        )


def check_frames(model: Any, frames: int) -> None:
    """Raise ValueError unless so many input frames make at least one frame of output."""
    if model.output_length(frames) < 1:
        raise ValueError(f"expected a longer recording, received {frames} frames, too few for the model")


def windowed_log_probs(
    model: Any,
    features: Tensor,
    window: int,
    margin: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """A CTC model's log-probabilities of a long recording, read in overlapping windows.

    Args:
        features: [F, T].
        window, margin: how many frames the model reads at once, and how many of these, at each end, are only context.

    Returns:
        [T', V], as many frames as the model makes of the whole. Also the same values, up to rounding, if no output
        frame
            depends on input further away than the margin.
    """
    log_probs: Any = None
    first = 0
    for part in _each_window(model, features, window, margin, progress):
        if log_probs is None:
            log_probs = part.new_empty(model.output_length(features.shape[1]), part.shape[1])
        log_probs[first : first + len(part)] = part
        first += len(part)
    return log_probs


@torch.no_grad()
def _each_window(
    model: Any, features: Tensor, window: int, margin: int, progress: Callable[[float], None]
) -> Iterator[Tensor]:
    """The same in parts, one for each window."""
    check_frames(model, features.shape[1])
    total, device = model.output_length(features.shape[1]), device_of(model)
    for read, first, kept in _windows(model, features.shape[1], window, margin):
        part = features[:, read].to(device)
        log_probs, _ = model(part[None, None], torch.tensor([part.shape[1]], device=device))
        yield log_probs[0, kept]
        progress((first + kept.stop - kept.start) / total)


def _windows(model: Any, frames: int, window: int, margin: int) -> Iterator[tuple[slice, int, slice]]:
    """For each window: the input frames to read, the first output frame to keep, and the part of the output to keep."""
    total = model.output_length(frames)
    if frames <= window:
        yield slice(0, frames), 0, slice(0, total)
        return
    # A window begins where an output frame begins.
    stride = model.frame_geometry.step
    context = -(-margin // stride)
    core = max(1, window // stride - 2 * context)
    for first in range(0, total, core):
        last = min(total, first + core)
        begin = max(0, first - context)
        # Convolutions without padding need a few more frames.
        wanted = last + context - begin
        length = wanted * stride
        while model.output_length(length) < wanted:
            length += stride
        yield (
            slice(begin * stride, min(frames, begin * stride + length)),
            first,
            slice(first - begin, last - begin),
        )


def _batches(segments: Iterable[Segment], most_samples: int) -> Iterator[list[Segment]]:
    """Segments that are read at once: at least one, and not more samples than that."""
    batch: list[Segment] = []
    for segment in segments:
        if batch and sum(len(each.samples) for each in (*batch, segment)) > most_samples:
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same; each is made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item
