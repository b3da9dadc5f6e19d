"""Counts of a server, in Prometheus' text form."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_BATCH = (1, 2, 4, 8, 16)


class Histogram:
    """How many values are at most as large as each bound.

    Args:
        bounds: ascending.
    """

    def __init__(self, bounds: Iterable[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterable[str]:
        """As Prometheus reads it."""
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """What a server has done, and what it is doing."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._totals = {"audio": 0.0, "compute": 0.0, "stream_audio": 0.0}
        self._request_seconds, self._partial_seconds = Histogram(_SECONDS), Histogram(_SECONDS)
        self._batch_size = Histogram(_BATCH)
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show what ``value`` returns."""
        self._gauges[name] = (meaning, value)

    def answered(self, endpoint: str, status: str, seconds: float) -> None:
        """A request ended."""
        with self._lock:
            self._answers[endpoint, status] += 1
            self._request_seconds.add(seconds)

    def computed(self, lengths_seconds: list[float], seconds: float) -> None:
        """Recordings of these lengths were computed together."""
        if not lengths_seconds:
            return
        with self._lock:
            self._batch_size.add(len(lengths_seconds))
            self._totals["audio"] += sum(lengths_seconds)
            self._totals["compute"] += seconds

    def heard(self, audio_seconds: float, latency_seconds: float) -> None:
        """A stream's chunk was answered, so long after it had come."""
        with self._lock:
            self._totals["stream_audio"] += audio_seconds
            self._partial_seconds.add(latency_seconds)

    def text(self) -> str:
        """All of them."""
        with self._lock:
            return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterable[str]:
        yield from _head("asrkern_answers_total", "counter", "Requests and streams that ended.")
        for (endpoint, status), count in sorted(self._answers.items()):
            yield f'asrkern_answers_total{{endpoint="{endpoint}",status="{status}"}} {count}'
        for name, meaning in (
            ("audio", "Audio of recordings that were computed."),
            ("compute", "Time of computing them."),
            ("stream_audio", "Audio of streams."),
        ):
            yield from _head(f"asrkern_{name}_seconds_total", "counter", meaning)
            yield f"asrkern_{name}_seconds_total {self._totals[name]:.6f}"
        for name, (meaning, value) in self._gauges.items():
            yield from _head(name, "gauge", meaning)
            yield f"{name} {value():g}"
        for name, histogram, meaning in (
            ("asrkern_request_seconds", self._request_seconds, "From a request to its answer."),
            ("asrkern_partial_seconds", self._partial_seconds, "From a stream's chunk to its result."),
            ("asrkern_batch_size", self._batch_size, "Recordings computed together."),
        ):
            yield from _head(name, "histogram", meaning)
            yield from histogram.lines(name)


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
