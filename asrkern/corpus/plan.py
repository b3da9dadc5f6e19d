"""Entries of a manifest as jobs, and batches of jobs of like lengths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from asrkern.data import Utterance

# An entry's result, as JSON.
Row = dict[str, Any]

# How many entries are sorted by length at once, and what a batch may have.
_SORTED_ENTRIES = 4096
_BATCH_JOBS, _BATCH_SECONDS = 32, 60.0


class Job(NamedTuple):
    """A recording, or a part of one.

    entry: its number in the manifest, from 0; path: the recording; offset, duration: of the part, in seconds.
    """

    entry: int
    path: str
    offset: float
    duration: float


def as_job(entry: int, found: Utterance | Exception) -> Job | Row:
    """The job of an entry, or the row that says what is wrong with it."""
    if isinstance(found, Exception):
        return {"entry": entry, "error": str(found)}
    if found.audio_path is None:
        return {"entry": entry, "error": "expected a recording, received stored features"}
    return Job(entry, os.path.abspath(found.audio_path), found.offset_seconds, found.duration_seconds)


def batches(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Batches of at most 32 jobs and, padded, a minute; at least one job. Longer ones come first, so that all workers end
    at about the same time."""
    jobs = iter(jobs)
    while part := sorted(islice(jobs, _SORTED_ENTRIES), key=lambda job: -job.duration):
        while part:
            count = min(_BATCH_JOBS, max(1, int(_BATCH_SECONDS / part[0].duration)))
            yield part[:count]
            part = part[count:]
