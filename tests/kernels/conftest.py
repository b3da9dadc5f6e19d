from __future__ import annotations

import pytest

from tests.kernels import gru_host, team_search


@pytest.fixture(scope="session")
def gru_library(tmp_path_factory):
    return gru_host.build(tmp_path_factory.mktemp("gru"))


@pytest.fixture(scope="session")
def emulated_gru_library(tmp_path_factory):
    return gru_host.build_emulated(tmp_path_factory.mktemp("emulated_gru"))


@pytest.fixture(scope="session")
def team_program(tmp_path_factory):
    return team_search.build(tmp_path_factory.mktemp("team"), "-O2")
