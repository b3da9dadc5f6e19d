from __future__ import annotations

import pytest

from tests.kernels import gru_host


@pytest.fixture(scope="session")
def gru_library(tmp_path_factory):
    return gru_host.build(tmp_path_factory.mktemp("gru"))
