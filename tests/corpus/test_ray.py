"""Actors of Ray Data, on a cluster of two machines with a CPU each: one row for each entry, whatever dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.corpus import RayEngine, transcribe_corpus
from asrkern.corpus.cluster import _Tries
from asrkern.corpus.plan import Job
from tests.corpus.workers import Mortal, Niceness, Stillborn, rows_of

ROOT = Path(__file__).parents[2]
# Nothing here waits for ever.
MOST_SECONDS = 300


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


def command(
    *arguments: str, code: str = "from asrkern.__main__ import main; main()", **environment: str
) -> Any:
    """``asrkern transcribe`` in a process of its own, or what ``code`` makes of it."""
    return subprocess.run(
        [sys.executable, "-c", code, "transcribe", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=MOST_SECONDS,
    )  # fmt: skip


@pytest.fixture
def job(corpus: tuple[Path, Path], tmp_path: Path) -> list[str]:
    """Arguments of the command: the corpus and a file that is no recording."""
    manifest, checkpoint = corpus
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    for entry in entries:
        entry["audio_filepath"] = str(manifest.parent / entry["audio_filepath"])
    (tmp_path / "bad.wav").write_text("no audio")
    entries.append({"audio_filepath": "bad.wav", "duration": 1})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    places = ["--manifest", str(tmp_path / "m.jsonl"), "-o", str(tmp_path / "out")]
    return [str(checkpoint), *places, "--beam-width", "8", "--engine", "ray", "--workers", "2"]


def check(done: Any, out: Path, expected: list[dict[str, Any]]) -> None:
    """What has ended has a row for each entry, and said that one is bad."""
    assert done.returncode == 1 and "1 of 71 entries were not transcribed" in done.stderr, done.stderr
    *rows, last = rows_of(out)
    assert rows == expected
    assert last["entry"] == 70 and "expected a complete audio file" in last["error"] and "text" not in last


def test_the_command(job: list[str], expected: list[dict[str, Any]], tmp_path: Path) -> None:
    """On a cluster of its own, whichever Ray would else have taken."""
    pytest.importorskip("ray.data")
    check(command(*job, RAY_ADDRESS="127.0.0.1:9"), tmp_path / "out", expected)


def test_an_actor_that_is_killed(
    cluster: str, corpus: tuple[Path, Path], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    manifest, checkpoint = corpus
    with RayEngine(Mortal(checkpoint, 41, tmp_path / "killed"), 2, cluster) as engine:
        assert transcribe_corpus(manifest, tmp_path / "out", engine, {}) == (70, 0)
    assert (tmp_path / "killed").exists() and rows_of(tmp_path / "out") == expected


def test_a_recording_that_kills_each_actor(
    cluster: str, corpus: tuple[Path, Path], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    manifest, checkpoint = corpus
    with RayEngine(Mortal(checkpoint, 7), 2, cluster) as engine:
        assert transcribe_corpus(manifest, tmp_path / "out", engine, {}) == (70, 1)
    rows = rows_of(tmp_path / "out")
    assert rows[:7] + rows[8:] == expected[:7] + expected[8:]
    assert rows[7]["error"] == "the process that transcribed it died each time"


def test_a_driver_that_is_killed_goes_on(
    cluster: str, job: list[str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    job += ["--address", cluster]
    killed = command(*job, code="from tests.corpus.workers import run_and_die; run_and_die()")
    assert killed.returncode == -9, killed.stderr
    before = (tmp_path / "out" / "transcripts.jsonl").read_bytes()
    assert 0 < before.count(b"\n") < 71
    # Half a row, too.
    with open(tmp_path / "out" / "transcripts.jsonl", "ab") as file:
        file.write(b'{"entry": 69, "te')
    check(command(*job), tmp_path / "out", expected)
    # What was there is kept as it was.
    assert (tmp_path / "out" / "transcripts.jsonl").read_bytes().startswith(before)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "nobody answers"),
        ("no.such.host.invalid:6379", "nobody answers"),
        ("head", "expected HOST:PORT"),
    ],
)
def test_a_cluster_that_is_not_there(address: str, message: str, job: list[str], tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    done = CliRunner().invoke(app, ["transcribe", *job, "--address", address])
    [line] = done.stderr.splitlines()
    assert done.exit_code == 1 and line.startswith("error: --address: ") and message in line
    assert repr(address) in line and not (tmp_path / "out").exists()


def test_actors_that_fit_on_no_machine(cluster: str) -> None:
    """Ray waits for a machine. A cluster may get one, the machine that we are on does not."""
    with pytest.warns(UserWarning, match="no machine of the cluster has 2 CPUs and 0 GPUs"):
        RayEngine(Niceness(), 1, cluster, cpus=2).__enter__().__exit__()
    with pytest.raises(ValueError, match=r"gpus: expected at most the 0 of this machine, received 1$"):
        RayEngine(Niceness(), 1, gpus=1).__enter__()
    # A cluster of our own has the processors that its actors want.
    with RayEngine(Niceness(), 2, cpus=2) as engine:
        assert [rows for rows in engine.run([[Job(0, "a.wav", 0.0, 1.0)]])]


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


@pytest.mark.parametrize(
    ("how", "message"),
    [("killed", "expected actors that start, received 6 that died"), ("failed", "no such model")],
)
def test_actors_that_do_not_start(
    how: str, message: str, cluster: str, corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    with RayEngine(Stillborn(how), 1, cluster) as engine, pytest.raises(ChildProcessError, match=message):
        transcribe_corpus(corpus[0], tmp_path / "out", engine, {})


IN_A_CLUSTER_OF_ITS_OWN = """
import json, os
from asrkern.corpus import RayEngine
from asrkern.corpus.plan import Job
from tests.corpus.workers import Niceness
with RayEngine(Niceness(), 1) as engine:
    rows = [row for rows in engine.run([[Job(0, "a.wav", 0.0, 1.0)]]) for row in rows]
print(json.dumps([os.nice(0), rows]))
"""


def test_actors_are_as_nice_as_the_command() -> None:
    """Ray 2.60 alone gives them a niceness of 15: findings/ray_worker_niceness.sh."""
    pytest.importorskip("ray.data")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CLUSTER_OF_ITS_OWN],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    niceness, [row] = json.loads(done.stdout.splitlines()[-1])
    assert row["text"] == str(niceness)


def test_what_ray_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"ray is not installed: pip install 'asrkern\[ray\]'"):
        RayEngine(Stillborn("killed"), 1)
