"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from asrkern.corpus.plan import Job, Row

# So many workers in a row may die before they are ready.
_STARTS = 3


class _Process(NamedTuple):
    process: Any
    connection: Connection


class LocalEngine:
    """Processes that each make a worker and give it batch after batch.

    Args:
        make_worker: a :class:`Worker` or what is called like one; called in each process, so it has to be picklable.
        workers: how many processes.
        threads: of torch, in each.

    Raises:
        ValueError: fewer than one.
    """

    def __init__(
        self, make_worker: Callable[[], Callable[[Sequence[Job]], list[Row]]], workers: int, threads: int = 1
    ) -> None:
        if workers < 1 or threads < 1:
            raise ValueError(f"workers, threads: expected at least 1, received {workers}, {threads}")
        self._make_worker, self._threads = make_worker, threads
        # Nothing that is open here is open there, so a process notices at once when another one has ended.
        self._context = multiprocessing.get_context("spawn")
        self._failed_starts = 0
        self._starting: list[_Process] = []
        self._idle: list[_Process] = []
        self._busy: list[_Process] = []
        self._workers = workers

    def __enter__(self) -> LocalEngine:
        """Start the processes."""
        for _ in range(self._workers):
            self._start()
        return self

    def __exit__(self, *error: object) -> None:
        """End them."""
        for each in (*self._starting, *self._idle, *self._busy):
            each.process.kill()
            each.process.join()
            each.connection.close()

    def run(self, batches: Iterable[list[Job]]) -> Iterator[list[Row]]:
        """Rows of each batch, as they are done. Those of a batch whose process dies are missing.

        Args:
            batches: taken when a process is free.

        Raises:
            ChildProcessError: processes die before they have made their worker.
            Exception: what making a worker raises, or a worker.
        """
        left = iter(batches)
        while True:
            while self._idle and (batch := next(left, None)) is not None:
                self._give(self._idle.pop(), batch)
            if not self._busy and self._idle:
                return
            for connection in wait([each.connection for each in (*self._starting, *self._busy)]):
                rows = self._hear(connection)
                if rows is not None:
                    yield rows

    def _start(self) -> None:
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(there, self._make_worker, self._threads), daemon=True
        )
        process.start()
        there.close()
        self._starting.append(_Process(process, here))

    def _give(self, worker: _Process, batch: list[Job]) -> None:
        self._busy.append(worker)
        try:
            worker.connection.send(batch)
        except OSError:
            # It is dead, which is heard of next.
            return

    def _hear(self, connection: Any) -> list[Row] | None:
        """Rows, if that is what a process says."""
        [worker] = (each for each in (*self._starting, *self._busy) if each.connection is connection)
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return None
        if isinstance(answer, Exception):
            raise answer
        (self._starting if worker in self._starting else self._busy).remove(worker)
        self._idle.append(worker)
        self._failed_starts = 0
        return answer

    def _replace(self, worker: _Process) -> None:
        worker.process.join()
        worker.connection.close()
        if worker in self._starting:
            self._failed_starts += 1
            if self._failed_starts == _STARTS:
                raise ChildProcessError(
                    f"workers: expected processes that start, received {_STARTS} that died before they had read the "
                    f"model; the last one's exit status is {worker.process.exitcode}"
                )
        (self._starting if worker in self._starting else self._busy).remove(worker)
        self._start()


def _work(connection: Connection, make_worker: Callable[[], Any], threads: int) -> None:
    import torch

    # Ctrl-C is for the process that reads the rows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        worker = make_worker()
        connection.send(None)
        while True:
            connection.send(worker(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # Nobody is there any more.
        return
    except Exception as error:
        connection.send(error)
