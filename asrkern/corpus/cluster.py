"""Workers that are actors of Ray Data, on one machine or many. Needs the extra ``ray``."""

from __future__ import annotations

import json
import math
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy

from asrkern._optional import require
from asrkern.corpus.plan import Job, Row

# What Ray keeps of each block would else be more than the work.
_MOST_BLOCKS = 2048
_TRIES, _STARTS = 2, 6
_ANSWER_SECONDS = 10


class RayEngine:
    """An actor pool of Ray Data. Machines of the cluster have to have asrkern and the same files under the same names.

    Args:
        make_worker: a :class:`Worker` or what is called like one; called in each actor, so it has to be picklable.
        workers: how many actors.
        address: HOST:PORT of a cluster, "auto" for the one that this machine is of; None starts one on this machine.
        cpus, gpus: of each actor.

    Raises:
        ImportError: the extra ``ray`` is not installed.
        ConnectionError: there is no cluster at that address.
        ValueError: the address is not of that form, or this machine has fewer GPUs than one actor wants. A cluster without
            a machine for an actor may get one: that is a warning.
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
        self._ray, self._data = require("ray", "ray"), require("ray.data", "ray")
        self._make_worker, self._workers, self._address = make_worker, workers, address
        self._resources = {"num_cpus": cpus, "num_gpus": gpus}

    def __enter__(self) -> RayEngine:
        """Connect to the cluster."""
        if self._address is None:
            # Not the one that RAY_ADDRESS names or that runs here already. Ray's own niceness of 15 would leave the actors
            # what other processes leave.
            place: dict[str, Any] = {
                "address": "local",
                "num_cpus": math.ceil(self._workers * max(1, self._resources["num_cpus"])),
                "include_dashboard": False,
                "_system_config": {"worker_niceness": 0},
            }
        else:
            _check_that_somebody_answers(self._address)
            place = {"address": self._address}
        self._ray.init(**place, logging_level="ERROR", log_to_driver=False)
        self._data.DataContext.get_current().enable_progress_bars = False
        self._look_for_room()
        return self

    def _look_for_room(self) -> None:
        # Ray would wait for a machine that an actor fits on, without a word.
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        wanted = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        if any(all(has.get(kind, 0) >= amount for kind, amount in wanted.items()) for has in machines):
            return
        if self._address is None:
            self._ray.shutdown()
            has = machines[0].get("GPU", 0) if machines else 0
            raise ValueError(
                f"gpus: expected at most the {has:g} of this machine, received {wanted['GPU']:g}"
            )
        warnings.warn(
            f"ray: no machine of the cluster has {wanted['CPU']:g} CPUs and {wanted['GPU']:g} GPUs for an actor; waiting "
            "for one",
            stacklevel=3,
        )

    def __exit__(self, *error: object) -> None:
        """Leave it, or end the one that was started."""
        self._ray.shutdown()

    def run(self, batches: Iterable[list[Job]]) -> Iterator[list[Row]]:
        """Rows of each batch, as they are done. Those of batches whose actors die again and again are missing.

        Args:
            batches: read before the work begins.

        Raises:
            ChildProcessError: actors cannot make their worker, or die before they have one.
        """
        items = [json.dumps(batch) for batch in batches]
        if not items:
            return
        tries = self._ray.remote(num_cpus=0, max_restarts=-1)(_Tries).remote()
        found = self._data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map_batches(
            _Actor,
            fn_constructor_args=(self._make_worker, tries),
            batch_size=1,
            compute=self._data.ActorPoolStrategy(size=self._workers),
            **self._resources,
        )
        try:
            for row in found.iter_rows():
                yield json.loads(row["rows"])
        except self._ray.exceptions.RayError as error:
            *_, last = str(error).strip().splitlines() or [type(error).__name__]
            raise ChildProcessError(f"ray: expected actors that go on, received: {last}") from error


def _check_that_somebody_answers(address: str) -> None:
    """Ray itself would try for long, and say so in many lines.

    Raises:
        ConnectionError: nobody does.
        ValueError: the address is not of that form.
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


class _Tries:
    """How often actors have begun with a batch, and with their worker. Ray would begin again for ever."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._starts = 0

    def may_begin(self, batch: str) -> bool:
        self._begun[batch] += 1
        return self._begun[batch] <= _TRIES

    def may_start(self) -> bool:
        self._starts += 1
        return self._starts <= _STARTS

    def started(self) -> None:
        self._starts = 0


class _Actor:
    def __init__(self, make_worker: Callable[[], Any], tries: Any) -> None:
        import torch

        torch.set_num_threads(1)
        self._ray, self._tries = require("ray", "ray"), tries
        if not self._ray.get(tries.may_start.remote()):
            raise ChildProcessError(
                f"workers: expected actors that start, received {_STARTS} that died before they had read the model"
            )
        self._worker = make_worker()
        tries.started.remote()

    def __call__(self, batch: dict[str, numpy.ndarray]) -> dict[str, list[str]]:
        return {"rows": [json.dumps(self._rows(item)) for item in batch["item"]]}

    def _rows(self, item: str) -> list[Row]:
        if not self._ray.get(self._tries.may_begin.remote(item)):
            return []
        return self._worker([Job(*job) for job in json.loads(item)])
