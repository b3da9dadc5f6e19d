"""The way from a manifest to one row for each of its entries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from asrkern.corpus.plan import Job, Row, as_job, batches
from asrkern.corpus.rows import RowFile, digest
from asrkern.data.manifest import manifest_entries

# How often a recording is tried alone after the worker that had it has died.
_TRIES_ALONE = 2


class Engine(Protocol):
    """Where workers are: :class:`LocalEngine`, :class:`RayEngine`."""

    def run(self, batches: Iterable[list[Job]]) -> Iterator[list[Row]]:
        """Rows of each batch, in any order; those of a batch may be missing, all of them."""
        ...


class Counts(NamedTuple):
    """entries: rows that are there now; errors: how many of them have an error."""

    entries: int
    errors: int


def transcribe_corpus(
    manifest: str | os.PathLike[str],
    out: str | os.PathLike[str],
    engine: Engine,
    identity: Mapping[str, object],
    progress: Callable[[int, float], None] = lambda entries, seconds: None,
) -> Counts:
    """Write ``transcripts.jsonl`` with exactly one row for each entry of a manifest; go on with what is there.

    A row is a JSON object: ``entry`` (its number in the manifest, from 0), ``file``, ``offset`` and ``seconds``, and what
    ``asrkern transcribe --json`` says, or ``error``. Rows come in the order in which they are done. Entries whose workers
    have died are tried again, alone; if their workers die then, too, their rows say so.

    Args:
        manifest: of one of the forms of :func:`asrkern.data.read_manifest`.
        out: the folder.
        engine: entered.
        identity: of what makes the rows, as JSON: a folder that was begun with another identity, or another manifest, is
            refused.
        progress: called with the number of rows that are there and the seconds of audio that have been read now.

    Returns:
        Their numbers.

    Raises:
        OSError: the manifest cannot be read, or the rows not be written.
        ValueError: the folder is of another job, or used by another process.
        Exception: what the engine raises. The rows that are there are kept.
    """
    path, seconds = Path(manifest), 0.0
    with RowFile(Path(out), {**identity, "manifest": digest(path)}) as rows:
        progress(len(rows.done), seconds)

        def run(parts: Iterable[list[Job]]) -> None:
            nonlocal seconds
            for found in engine.run(parts):
                rows.append(found)
                seconds += sum(row.get("seconds", 0.0) for row in found)
                progress(len(rows.done), seconds)

        run(batches(_left(path, rows)))
        for _ in range(_TRIES_ALONE):
            run([job] for job in _left(path, rows))
        died = "the process that transcribed it died each time"
        rows.append([{"entry": job.entry, "file": job.path, "error": died} for job in _left(path, rows)])
        progress(len(rows.done), seconds)
        return Counts(len(rows.done), rows.errors)


def _left(manifest: Path, rows: RowFile) -> Iterator[Job]:
    """Jobs of the entries without a row. Rows of bad entries are written on the way."""
    for entry, (_, found) in enumerate(manifest_entries(manifest)):
        if entry in rows.done:
            continue
        job = as_job(entry, found)
        if isinstance(job, Job):
            yield job
        else:
            rows.append([job])
