"""One server for the tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("starlette")

from tests.serve.live import Live, serving, streaming_searches


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    with serving(streaming_searches()) as server:
        yield server
