"""The searches that requests ask for, over one model and one language model."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from asrkern.data import make_detector
from asrkern.recognizer import Recognizer, StreamTranscriber, Transcriber
from asrkern.serve.fields import SearchFields
from asrkern.serve.refusal import Refusal

# Each has tables as large as the language model's vocabulary.
_KEPT_WEIGHTS, _KEPT_SEARCHES = 4, 64


class Searches:
    """Transcribers for the fields of requests.

    Args:
        recognizer: the model.
        low_latency: of streams, see :class:`asrkern.recognizer.StreamTranscriber`.
        options: of :class:`asrkern.recognizer.Transcriber`, what counts where a request says nothing.

    Attributes:
        detector: of the pauses at which long recordings are cut.
        no_streams: why the model hears no live speech; None if it does.

    Raises:
        ValueError: an option out of range, a classifier, or a model that does not read audio.
    """

    def __init__(self, recognizer: Recognizer, *, low_latency: bool = False, **options: Any) -> None:
        if recognizer.task_name == "classify" or recognizer.features.kind == "stored":
            raise ValueError(
                f"model: expected one that writes what it hears, received {recognizer.model_name}, "
                f"task {recognizer.task_name}, features {recognizer.features.kind}"
            )
        if recognizer.task_name == "ctc":
            options["beam_width"] = options.get("beam_width") or 100
        self.recognizer = recognizer
        self.low_latency = low_latency
        self._usual = Transcriber(recognizer, **options)
        self.detector = make_detector("auto", recognizer.features.sample_rate)
        self._make = partial(Transcriber, recognizer, **options)
        self._weights = {name: options.get(name) for name in ("alpha", "beta")}
        self._weighted = lru_cache(_KEPT_WEIGHTS)(self._with_weights)
        self.of = lru_cache(_KEPT_SEARCHES)(self._of)
        self.no_streams = self._why_no_streams()

    @property
    def sample_rate(self) -> int:
        """What the model reads, in Hz."""
        return self.recognizer.features.sample_rate

    @property
    def has_times(self) -> bool:
        """Whether words have times and confidences."""
        return self._usual.decoder is not None

    @property
    def has_language_model(self) -> bool:
        """Whether there is one, which alpha weighs."""
        decoder = self._usual.decoder
        return decoder is not None and decoder.lm is not None

    def check(self, fields: SearchFields) -> None:
        """Raise a Refusal, 400, of fields that this model has no use for."""
        wanted = fields.model_dump(include={"hotwords", "alpha", "beta"}, exclude_defaults=True)
        if wanted and not self.has_times:
            name = next(iter(wanted))
            raise Refusal(400, f"{name}: expected none, since the model is no CTC model", name)

    def _why_no_streams(self) -> str | None:
        if self.recognizer.device.type != "cpu":
            return f"device: expected cpu for live speech, received {self.recognizer.device}"
        try:
            StreamTranscriber(self._usual)
        except ValueError as error:
            return str(error)
        return None

    def _of(self, fields: SearchFields) -> Transcriber:
        """The transcriber of a request.

        Raises:
            Refusal: 400, hotwords that cannot be spelled by the model's labels.
        """
        transcriber = self._weighted(fields.alpha, fields.beta)
        if not fields.hotwords:
            return transcriber
        # As transcripts were made uniform for training.
        hotwords = [word for word in map(self.recognizer.text, fields.hotwords) if word]
        try:
            return transcriber.replace(hotwords=hotwords, hotword_weight=fields.hotword_weight)
        except ValueError as error:
            raise Refusal(400, str(error), "hotwords") from None

    def _with_weights(self, alpha: float | None, beta: float | None) -> Transcriber:
        given: dict[str, Any] = {
            name: value for name, value in (("alpha", alpha), ("beta", beta)) if value is not None
        }
        # Without a language model alpha weighs nothing.
        if all(self._weights[name] == value for name, value in given.items()):
            return self._usual
        return self._make(**given)
