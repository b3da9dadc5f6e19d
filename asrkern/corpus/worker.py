"""What turns batches of jobs into rows, in a process or an actor of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from asrkern._memory import out_of_memory
from asrkern.corpus.plan import Job, Row
from asrkern.data import load_audio, make_detector
from asrkern.recognizer import Transcriber, Transcript
from asrkern.recognizer.transcript_forms import as_object
from asrkern.recognizer.transcription import check_frames

# Manifests round durations.
_TOLERANCE_SECONDS = 0.05


class Worker:
    """Transcribes batches.

    Args:
        make_transcriber: called once, by the process that does the work; it has to be picklable.
        vad: what finds the pauses of recordings longer than a window, see :func:`asrkern.data.make_detector`; None: they
            are read in overlapping windows.
        window_seconds, margin_seconds: see :meth:`asrkern.recognizer.Transcriber.recording`.

    Raises:
        Exception: what ``make_transcriber`` raises.
    """

    def __init__(
        self,
        make_transcriber: Callable[[], Transcriber],
        vad: str | None = "auto",
        window_seconds: float = 30.0,
        margin_seconds: float = 3.0,
    ) -> None:
        self._transcriber = make_transcriber()
        self._settings = self._transcriber.recognizer.features
        self._extract = self._settings.make()
        detector = None if vad is None else make_detector(vad, self._settings.sample_rate)
        self._window_seconds = window_seconds
        self._options: dict[str, Any] = {
            "window_seconds": window_seconds,
            "margin_seconds": margin_seconds,
            "detector": detector,
        }

    def __call__(self, jobs: Sequence[Job]) -> list[Row]:
        """A row for each job, in their order; of what cannot be transcribed, a row with an error.

        Args:
            jobs: a batch.
        """
        rows: dict[int, Row] = {}
        short: dict[Job, tuple[Tensor, float]] = {}
        for job in jobs:
            try:
                samples = self._load(job)
                seconds = len(samples) / self._settings.sample_rate
                if seconds > self._window_seconds:
                    rows[job.entry] = _row(
                        job, self._transcriber.recording(samples, **self._options), seconds
                    )
                    continue
                features = self._extract(samples)
                check_frames(self._transcriber.recognizer.model, features.shape[1])
                short[job] = features, seconds
            except Exception as error:
                rows[job.entry] = _refusal(job, error)
        for job, row in zip(short, self._together(short), strict=True):
            rows[job.entry] = row
        return [rows[job.entry] for job in jobs]

    def _load(self, job: Job) -> Tensor:
        return load_audio(
            job.path,
            self._settings.sample_rate,
            offset_seconds=job.offset,
            duration_seconds=job.duration,
            tolerance_seconds=_TOLERANCE_SECONDS,
        )

    def _together(self, short: dict[Job, tuple[Tensor, float]]) -> list[Row]:
        if not short:
            return []
        try:
            found = self._transcriber.batch(*zip(*short.values()))
        except Exception as error:
            if len(short) == 1:
                return [_refusal(job, error) for job in short]
            return [row for job, each in short.items() for row in self._together({job: each})]
        return [_row(job, each, seconds) for (job, (_, seconds)), each in zip(short.items(), found)]


def _row(job: Job, found: Transcript, seconds: float) -> Row:
    return {"entry": job.entry, "offset": job.offset, **as_object(found, job.path, seconds)}


def _refusal(job: Job, error: Exception) -> Row:
    """The row of what cannot be transcribed."""
    said = str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
    row = {"entry": job.entry, "offset": job.offset, "file": job.path}
    return row | {"error": out_of_memory(error) or said}
