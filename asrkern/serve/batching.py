"""Recordings that wait together are computed together, in a thread of its own.

Those that fit into one window of the model and ask for the same search make a batch. On the CPU each one's result is, to
the last bit, what it would be alone: see :meth:`asrkern.recognizer.Transcriber.recordings`.
"""

from __future__ import annotations

import io
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from asrkern._memory import out_of_memory
from asrkern.recognizer import Transcriber, Transcript
from asrkern.serve.fields import SearchFields
from asrkern.serve.metrics import Metrics
from asrkern.serve.refusal import Refusal
from asrkern.serve.searches import Searches
from asrkern.serve.uploads import read_recording

# What one window of the model reads, and how many of these at once.
_WINDOW_SECONDS, _MARGIN_SECONDS, _MOST_TOGETHER = 30.0, 3.0, 16


class Heard(NamedTuple):
    """A recording's transcript and length in seconds."""

    transcript: Transcript
    seconds: float


@dataclass(eq=False)
class Job:
    """A recording that waits.

    Attributes:
        file: the recording; it is closed when the job is over.
        fields: the search.
        result: what comes of it.
        abandoned: nobody waits any more.
    """

    file: io.FileIO
    fields: SearchFields
    result: Future[Heard] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)


class _Abandoned(Exception):
    """Raised within a recording that nobody waits for."""


class Batcher:
    """The thread that computes recordings.

    Args:
        searches: the model.
        longest_seconds: of a recording.
        threads: of torch, for one batch.
        metrics: what it counts in.
    """

    def __init__(self, searches: Searches, longest_seconds: float, threads: int, metrics: Metrics) -> None:
        self._searches, self._longest_seconds, self._metrics = searches, longest_seconds, metrics
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
        self._threads, self._stopped = threads, False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the batch that is being computed; refuse what waits."""
        self._stopped = True
        self._waiting.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """How many recordings wait."""
        return self._waiting.qsize()

    def submit(self, file: io.FileIO, fields: SearchFields) -> Job:
        """A job for the recording, which is closed when that is over."""
        job = Job(file, fields)
        self._waiting.put(job)
        return job

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while (job := self._waiting.get()) is not None:
            batch: list[tuple[Job, Tensor]] = []
            while job is not None and self._read(job, batch) and len(batch) < _MOST_TOGETHER:
                try:
                    job = self._waiting.get_nowait()
                except queue.Empty:
                    break
            self._compute(batch)
            if job is None:
                return

    def _read(self, job: Job, batch: list[tuple[Job, Tensor]]) -> bool:
        """Read a job's recording into the batch; whether others may follow, which a long one keeps in memory."""
        with job.file:
            if not job.result.set_running_or_notify_cancel():
                return True
            rate = self._searches.sample_rate
            try:
                if self._stopped:
                    raise _ending()
                batch.append((job, read_recording(job.file, rate, self._longest_seconds)))
            except Exception as error:
                _fail([job], error)
                return True
            return len(batch[-1][1]) <= _WINDOW_SECONDS * rate

    def _compute(self, batch: Iterable[tuple[Job, Tensor]]) -> None:
        groups = defaultdict(list)
        for job, samples in batch:
            groups[job.fields].append((job, samples))
        for fields, group in groups.items():
            try:
                self._group(self._searches.of(fields), group)
            except Exception as error:
                _fail([job for job, _ in group], error)

    def _group(self, transcriber: Transcriber, group: list[tuple[Job, Tensor]]) -> None:
        rate = self._searches.sample_rate
        longest = _WINDOW_SECONDS * rate
        short = [(job, samples) for job, samples in group if len(samples) <= longest]
        try:
            started = time.perf_counter()
            found = transcriber.recordings(
                [samples for _, samples in short], _WINDOW_SECONDS, _MARGIN_SECONDS
            )
        except Exception:
            # One of them: alone, each fails for itself.
            for job, samples in group:
                self._alone(transcriber, job, samples)
            return
        seconds = [len(samples) / rate for _, samples in short]
        self._metrics.computed(seconds, time.perf_counter() - started)
        for (job, _), transcript, length in zip(short, found, seconds, strict=True):
            job.result.set_result(Heard(transcript, length))
        for job, samples in group:
            if len(samples) > longest:
                self._alone(transcriber, job, samples)

    def _alone(self, transcriber: Transcriber, job: Job, samples: Tensor) -> None:
        def progress(share: float) -> None:
            if job.abandoned.is_set() or self._stopped:
                raise _Abandoned

        seconds, started = len(samples) / self._searches.sample_rate, time.perf_counter()
        try:
            found = transcriber.recording(
                samples, _WINDOW_SECONDS, _MARGIN_SECONDS, progress, self._searches.detector
            )
        except _Abandoned:
            _fail([job], _ending())
        except Exception as error:
            _fail([job], error)
        else:
            self._metrics.computed([seconds], time.perf_counter() - started)
            job.result.set_result(Heard(found, seconds))


def _ending() -> Refusal:
    return Refusal(503, "the server is ending", retry_after=5)


def _fail(jobs: Iterable[Job], error: Exception) -> None:
    """Tell those who wait. What is wrong with a recording's values is the client's to mend."""
    if (memory := out_of_memory(error)) is not None:
        error = Refusal(503, memory, retry_after=30)
    elif isinstance(error, ValueError):
        error = Refusal(400, f"file: {error}", "file")
    for job in jobs:
        if not job.result.done():
            job.result.set_exception(error)
