"""How much may be asked of a server at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asrkern.serve.refusal import Refusal


@dataclass(frozen=True)
class Limits:
    """Limits of one server.

    Attributes:
        upload_mib: size of a request's body.
        audio_seconds: length of a recording, and of a stream.
        requests: recordings that come in, wait and are computed at once.
        request_seconds: for an upload, and from its last byte to the answer.
        idle_seconds: without a byte of an upload, or a message of a stream.
        streams: at once.

    Raises:
        ValueError: one is not positive.
    """

    upload_mib: int = 256
    audio_seconds: int = 7200
    requests: int = 32
    request_seconds: int = 600
    idle_seconds: int = 30
    streams: int = 64

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value <= 0:
                raise ValueError(f"{name}: expected a positive number, received {value}")


class Slots:
    """Places that clients take while they are served.

    Args:
        what: is counted, in words.
        count: of places.
        retry_after: seconds after which a client who got none may try again.
    """

    def __init__(self, what: str, count: int, retry_after: int) -> None:
        self._what, self._count, self._retry_after = what, count, retry_after
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            Refusal: 429, all are taken.
        """
        if self.taken >= self._count:
            message = f"expected at most {self._count} {self._what} at once, which are there"
            raise Refusal(429, message, retry_after=self._retry_after)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
