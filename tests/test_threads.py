"""Threads and how they wait, as the commands and ``asrkern.load`` choose them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrkern import _threads

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def groups(tmp_path):
    """Writes a tree of control groups: path → text; returns cpu_quota's arguments."""

    def write(membership: str, **files: str):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "cgroup", tmp_path / "membership"

    return write


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        # The least of the group and those above it.
        (
            "0::/a/b\n",
            {"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 25000", "cpu.max": "max 100000"},
            2.0,
        ),
        ("0::/a/b\n", {"a/b/cpu.max": "25000 100000", "a/cpu.max": "max 100000"}, 0.25),
        # A path of the host's, of which the container sees its own part only.
        ("0::/docker/0123\n", {"cpu.max": "300000 100000"}, 3.0),
        # Version 1, alone and beside version 2.
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        (
            "3:cpu,cpuacct:/x\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        (
            "2:cpuset:/x\n1:cpu:/x\n0::/\n",
            {
                "cpu/x/cpu.cfs_quota_us": "100000",
                "cpu/x/cpu.cfs_period_us": "50000",
                "unified/cpu.max": "max 1",
            },
            2.0,
        ),
        ("3:cpuset:/x\n", {"cpuset/x/cpu.max": "1 100000"}, None),
        ("0::/\n", {"cpu.max": "0 0\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
    ],
)
def test_quota_of_control_groups(groups, membership, files, expected):
    assert _threads.cpu_quota(*groups(membership, **files)) == expected


def test_no_control_groups(tmp_path):
    assert _threads.cpu_quota(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("quota", "environment", "count"),
    [
        (None, {}, None),
        (CPUS + 1.0, {}, None),
        (CPUS - 0.5, {}, max(1, CPUS - 1)),
        (0.3, {}, 1),
        (0.3, {"OMP_NUM_THREADS": "7"}, None),
        (0.3, {"OMP_NUM_THREADS": "7", "ASRKERN_THREADS": "5"}, 5),
    ],
)
def test_choice(monkeypatch, quota, environment, count):
    monkeypatch.setattr(_threads, "cpu_quota", lambda: quota)
    for name in ("OMP_NUM_THREADS", "ASRKERN_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _threads.choose.__wrapped__().count == count


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1" * 30, "²"])
def test_bad_number_of_threads(value):
    result = python("-m", "asrkern", "models", ASRKERN_THREADS=value)
    assert result.returncode == 1
    assert result.stderr == (
        f"asrkern: ASRKERN_THREADS: expected a positive number of threads, received {value!r}\n"
    )


START = """
import json, os, sys
sys.argv = {argv!r}
# As Python has it, whose -m stands before the module's name.
sys.orig_argv = ["python", "-X", "dev", "-m", {module!r}, *sys.argv[1:]]
"""
# In place of torch, whose import is what takes long.
SHOW = """
class Finder:
    def find_spec(name, *_):
        if name == "torch":
            names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
            print(json.dumps({name: os.environ[name] for name in names if name in os.environ}), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Finder)
import asrkern, torch
"""


def python(*arguments, **environment):
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    }
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=root,
        env={**inherited, **environment},
    )


def at_import(argv, module="asrkern", **environment):
    """The environment where torch is imported."""
    result = python("-c", START.format(argv=argv, module=module) + SHOW, **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_commands_set_how_threads_wait_before_torch_is_imported():
    waits = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(_threads.SPIN_COUNT)}
    assert at_import(["/somewhere/bin/asrkern", "models"]) == waits
    assert at_import(["-m"]) == waits
    assert at_import(["-m", "models", "-m"]) == waits
    assert at_import(["-m"], module="theirs.asrkern") == {}
    # What the user has set stays; a library's user is asked nothing.
    assert at_import(["asrkern"], OMP_WAIT_POLICY="active") == {"OMP_WAIT_POLICY": "active"}
    assert at_import(["asrkern"], GOMP_SPINCOUNT="7") == {"GOMP_SPINCOUNT": "7"}
    assert at_import(["train.py"]) == {}
    assert at_import(["asrkern"], ASRKERN_THREADS="1") == {**waits, "OMP_NUM_THREADS": "1"}


def test_torch_has_the_threads_that_a_command_is_given():
    code = START.format(argv=["asrkern"], module="asrkern")
    code += "import asrkern, torch; print(torch.get_num_threads())"
    assert python("-c", code, ASRKERN_THREADS="1").stdout == "1\n"


def test_commands_say_a_number_of_threads_that_is_not_torchs(tmp_path):
    (tmp_path / "lm.arpa").write_text(
        "\\data\\\nngram 1=3\n\n\\1-grams:\n-9\t<s>\n-1\t</s>\n-1\t<unk>\n\n\\end\\\n"
    )
    command = ["-m", "asrkern", "lm", "info", str(tmp_path / "lm.arpa")]
    result = python(*command, ASRKERN_THREADS="1")
    assert result.returncode == 0 and result.stderr == "asrkern: 1 threads, by ASRKERN_THREADS\n"
    assert python(*command).stderr == ""


def test_load_follows_the_quota_and_says_so(caplog, monkeypatch):
    import torch

    before, counts = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(_threads, "choose", lambda: _threads.Threads(before + 1, "a test"))
    _threads.apply()
    assert counts == [before + 1]
    assert caplog.messages == [f"{before + 1} threads in place of {before}: a test"]
    monkeypatch.setattr(_threads, "choose", lambda: _threads.Threads(None, "a test"))
    _threads.apply()
    assert counts == [before + 1]
