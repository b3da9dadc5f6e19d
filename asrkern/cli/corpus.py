"""``asrkern transcribe --manifest``: a corpus, by several processes or machines."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asrkern.cli.console import bars
from asrkern.cli.transcriber import TranscriberOptions

if TYPE_CHECKING:
    from asrkern.corpus import Worker


class EngineName(str, Enum):
    """Where workers are."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class Place:
    """Where and how many: the options --engine, --workers, --address."""

    engine: EngineName
    workers: int | None
    address: str | None

    def open(self, make_worker: partial[Worker], on_gpu: bool) -> AbstractContextManager[Any]:
        """The engine.

        Raises:
            ImportError: Ray is not installed.
        """
        import torch

        from asrkern.corpus import LocalEngine, RayEngine

        threads = torch.get_num_threads()
        workers = self.workers or (1 if on_gpu else threads)
        if self.engine is EngineName.ray:
            return RayEngine(make_worker, workers, self.address, gpus=int(on_gpu))
        return LocalEngine(make_worker, workers, max(1, threads // workers))


def transcribe_manifest(
    manifest: Path,
    out: Path,
    options: TranscriberOptions,
    place: Place,
    recording: dict[str, Any],
    parquet: bool,
) -> None:
    """Rows of a manifest in a folder, as a table too where ``parquet``; exit status 1 if some have errors."""
    from asrkern._threads import apply
    from asrkern.corpus import Worker, transcribe_corpus, write_parquet
    from asrkern.corpus.rows import digest

    apply()
    options = options.anywhere()
    identity = {"model": digest(options.checkpoint), **options.as_json(), **recording}
    began = time.perf_counter()
    make_worker = partial(Worker, options.open, **recording)
    with place.open(make_worker, options.device != "cpu") as engine, bars() as progress:

        def show(entries: int, seconds: float) -> None:
            speed = seconds / max(1e-3, time.perf_counter() - began)
            progress(
                "transcribing", entries, None, f"{entries} entries, {seconds:.0f} s, {speed:.1f} × real time"
            )

        entries, failed = transcribe_corpus(manifest, out, engine, identity, show)
    if parquet:
        write_parquet(out)
    if failed:
        typer.echo(f"error: {failed} of {entries} entries were not transcribed: see {out}", err=True)
        raise typer.Exit(1)
