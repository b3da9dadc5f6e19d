"""Actors of Ray Data, on a cluster of two machines with a CPU each: one row for each entry, whatever dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asrkern.corpus import RayEngine, transcribe_corpus
from asrkern.corpus.cluster import _Tries
from tests.corpus.workers import Mortal, Stillborn, rows_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two raylets. Their actors find the tests."""
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        machines.add_node(num_cpus=1)
        yield machines.address
        machines.shutdown()


def test_an_actor_that_is_killed(
    cluster: str, corpus: tuple[Path, Path], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    manifest, checkpoint = corpus
    with RayEngine(Mortal(checkpoint, 41, tmp_path / "killed"), 2, cluster) as engine:
        assert transcribe_corpus(manifest, tmp_path / "out", engine, {}) == (70, 0)
    assert (tmp_path / "killed").exists() and rows_of(tmp_path / "out") == expected


def test_ray_does_not_begin_for_ever() -> None:
    tries = _Tries()
    assert [tries.may_begin("a"), tries.may_begin("b"), tries.may_begin("a"), tries.may_begin("a")] == [
        True,
        True,
        True,
        False,
    ]
    assert all(tries.may_start() for _ in range(6)) and not tries.may_start()
    tries.started()
    assert tries.may_start()


def test_what_ray_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"ray is not installed: pip install 'asrkern\[ray\]'"):
        RayEngine(Stillborn("killed"), 1)
