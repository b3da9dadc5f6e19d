"""gpu_check.py from end to end without a GPU, where kernels fail, hang and die and the whole is cut in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
KERNELS = ["gru_forward", "ctc_beam_search", "masked_conv2d", "batch_norm_act", "gru_backward"]
GROUPS = {"gru", "beam", "conv", "bn", "deepspeech2", "gru-train"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, emulated_gru_library, team_program):
    found = tmp_path_factory.mktemp("rehearsal")
    for path in (Path(emulated_gru_library._name), team_program):
        (found / path.name).symlink_to(path)
    return found


def begin(folder, out, *arguments, resume=None, minutes=8) -> subprocess.Popen:
    """gpu_check.py --out OUT with its processes in a group of their own; arguments: what misbehaves."""
    options = [
        "--out",
        folder / out,
        "--minutes",
        str(minutes),
        *(["--resume", folder / resume] if resume else []),
    ]
    command = [sys.executable, "-m", "tests.kernels.rehearsal", folder, *arguments, "--", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


def kill_session(leader: int) -> None:
    """Kill a process and all others of its session, as a machine does that ends a command."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # After the name in brackets: state, parent, group, session.
            session = int(stat.read_text().rpartition(")")[2].split()[3])
            if session == leader:
                os.kill(int(stat.parent.name), signal.SIGKILL)


def record(folder, out):
    return json.loads((folder / out / "gpu.json").read_text())


def commands(folder, out, part):
    """The lines of a run's logs that began a process whose command holds this."""
    lines = "".join(path.read_text() for path in (folder / out).glob("*.log")).splitlines()
    return [line for line in lines if line.startswith("$ ") and part in line]


@pytest.fixture(scope="module")
def first(folder):
    """(exit status, what was printed, the record) of a run in which four kernels misbehave."""
    process = begin(
        folder, "first", "ctc_beam_search:small=dies", "batch_norm_act:small=fails", "gru_backward:small=hangs",
        "masked_conv2d:tests=dies",
    )  # fmt: skip
    printed, _ = process.communicate()
    return process.returncode, printed, record(folder, "first")


def test_each_kernel_costs_itself_alone(folder, first):
    status, printed, found = first
    assert status == 1
    kernels = found["kernels"]
    assert {name for name in KERNELS if kernels[name]["passed"]} == {"gru_forward"}
    assert kernels["gru_forward"]["small"]["passed"] == kernels["gru_forward"]["tests"]["passed"] == 2
    died, failed, hung = (
        kernels[name]["small"] for name in ("ctc_beam_search", "batch_norm_act", "gru_backward")
    )
    assert died["problem"] == f"exit status {-signal.SIGABRT}" and died["passed"] == 1
    assert failed["problem"] == "not all right" and (failed["passed"], failed["failed"]) == (1, 1)
    assert "WRONG" in " ".join(failed["failures"])
    assert hung["problem"].startswith("killed after ") and kernels["gru_backward"]["tests"] == {}
    # What is wrong in a small case is tested all the same; a test that dies takes the later ones with it.
    assert kernels["batch_norm_act"]["tests"]["passed"] == kernels["ctc_beam_search"]["tests"]["passed"] == 2
    assert (
        "problem" in kernels["masked_conv2d"]["tests"] and "problem" not in kernels["masked_conv2d"]["small"]
    )
    assert found["other_tests"]["passed"] == 2
    assert {row["group"] for row in found["rows"]} == GROUPS - {"gru-train"}
    assert "gru_backward not tested: its small cases hung" in printed and "gru-train not timed" in printed


def test_what_comes_back_is_small(folder, first):
    _, printed, _ = first
    assert len(printed) < 12_000
    sizes = {path.name: path.stat().st_size for path in (folder / "first").iterdir()}
    assert len(sizes) <= 8 and max(sizes.values()) < 2**20
    assert {"gpu.json", "gpu.md", "rows.jsonl", "build.tar.gz"} <= sizes.keys()


@pytest.fixture(scope="module")
def cut(folder, first):
    """The record of a run that went on from the first, killed while one kernel's small cases were still running."""
    process = begin(folder, "cut", "gru_backward:small=hangs long", resume="first")
    waiting = {"ctc_beam_search", "batch_norm_act"}
    for line in process.stdout:
        waiting -= {name for name in waiting if line.startswith(f"recorded {name}, small: 2 passed")}
        if not waiting:
            break
    kill_session(process.pid)
    process.wait()
    assert not waiting
    return record(folder, "cut")


def test_a_cut_loses_only_what_was_under_way(folder, first, cut):
    _, _, before = first
    kernels = cut["kernels"]
    for name in ("gru_forward", "masked_conv2d"):
        assert kernels[name] == before["kernels"][name]
    for name in ("ctc_beam_search", "batch_norm_act"):
        assert kernels[name]["small"]["passed"] == 2 and kernels[name]["tests"] == {}
    assert kernels["gru_backward"]["small"] == {} and not kernels["gru_backward"]["passed"]
    assert len(commands(folder, "cut", "_gpu_small.py")) == 2
    assert not commands(folder, "cut", "pip install")
    assert "its check was cut short" in (folder / "cut" / "gpu.md").read_text()


def test_a_resumed_run_does_what_is_left(folder, cut):
    process = begin(folder, "last", resume="cut", minutes=4)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    found = record(folder, "last")
    assert all(found["kernels"][name]["passed"] for name in KERNELS)
    assert found["kernels"]["gru_forward"] == cut["kernels"]["gru_forward"]
    assert [line.split()[-1] for line in commands(folder, "last", "_gpu_small.py")] == ["gru_backward"]
    assert len(commands(folder, "last", "-m pytest")) == 4  # neither gru_forward's nor the layers'
    assert {row["group"] for row in found["rows"]} == GROUPS
    assert not commands(folder, "last", "pip install") and found["build"]["kernels"] == [
        "f  sm_90a  40 registers"
    ]
