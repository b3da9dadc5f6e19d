"""Workers that are actors of Ray, on one machine or many. Needs the extra ``ray``."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from asrkern._optional import require
from asrkern.corpus.plan import Job, Row

# So many actors in a row may die before they are ready.
_STARTS = 3
_ANSWER_SECONDS = 10


class RayEngine:
    """Actors of Ray. Machines of the cluster have to have asrkern and the same files under the same names.

    Args:
        make_worker: a :class:`Worker` or what is called like one; called in each actor, so it has to be picklable.
        workers: how many actors.
        address: HOST:PORT of a cluster, "auto" for the one that this machine is of; None starts one on this machine.
        cpus, gpus: of each actor.

    Raises:
        ImportError: the extra ``ray`` is not installed.
        ConnectionError: there is no cluster at that address.
        ValueError: the address is none.
    """

    def __init__(
        self,
        make_worker: Callable[[], Callable[[Sequence[Job]], list[Row]]],
        workers: int,
        address: str | None = None,
        *,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        self._ray = require("ray", "ray")
        self._make_worker, self._workers, self._address = make_worker, workers, address
        self._resources = {"num_cpus": cpus, "num_gpus": gpus}
        # By what Ray will have of them.
        self._starting: dict[Any, Any] = {}
        self._busy: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._failed_starts = 0

    def __enter__(self) -> RayEngine:
        """Connect to the cluster, and start the actors."""
        if self._address is None:
            # Not the one that RAY_ADDRESS names or that runs here already. Ray's own niceness of 15 would leave the actors
            # what other processes leave.
            place: dict[str, Any] = {
                "address": "local",
                "num_cpus": self._workers,
                "include_dashboard": False,
                "_system_config": {"worker_niceness": 0},
            }
        else:
            _check_that_somebody_answers(self._address)
            place = {"address": self._address}
        self._ray.init(**place, logging_level="ERROR", log_to_driver=False)
        for _ in range(self._workers):
            self._start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave it, or end the one that was started. The actors end."""
        self._ray.shutdown()

    def run(self, batches: Iterable[list[Job]]) -> Iterator[list[Row]]:
        """Rows of each batch, as they are done. Those of a batch whose actor dies are missing.

        Args:
            batches: taken when an actor is free.

        Raises:
            ChildProcessError: actors die before they have made their worker.
            Exception: what making a worker raises, or a worker.
        """
        left = iter(batches)
        while True:
            while self._idle and (batch := next(left, None)) is not None:
                actor = self._idle.pop()
                self._busy[actor.rows.remote(batch)] = actor
            if not self._busy and self._idle:
                return
            ready, _ = self._ray.wait([*self._starting, *self._busy])
            for each in ready:
                rows = self._hear(each)
                if rows is not None:
                    yield rows

    def _start(self) -> None:
        actor = self._ray.remote(**self._resources)(_Actor).remote()
        self._starting[actor.start.remote(self._make_worker)] = actor

    def _hear(self, answer: Any) -> list[Row] | None:
        """Rows, if that is what an actor says."""
        starting = answer in self._starting
        actor = (self._starting if starting else self._busy).pop(answer)
        try:
            rows = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            self._failed_starts += starting
            if self._failed_starts == _STARTS:
                raise ChildProcessError(
                    f"workers: expected actors that start, received {_STARTS} that died before they had read the model; "
                    f"of the last one Ray says: {' '.join(str(error).split())}"
                ) from None
            self._start()
            return None
        self._failed_starts = 0
        self._idle.append(actor)
        return rows


def _check_that_somebody_answers(address: str) -> None:
    """Ray itself would try for long, and say so in many lines.

    Raises:
        ConnectionError: nobody does.
        ValueError: it is no address.
    """
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit()):
        raise ValueError(f"address: expected HOST:PORT or auto, received {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"address: expected a cluster of Ray, received {address!r}, where nobody answers: {error}"
        ) from None


class _Actor:
    def start(self, make_worker: Callable[[], Any]) -> None:
        import torch

        torch.set_num_threads(1)
        self._worker = make_worker()

    def rows(self, batch: list[Job]) -> list[Row]:
        return self._worker(batch)
