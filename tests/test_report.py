"""What ``asrkern`` and ``asrkern report`` say."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asrkern import _gpu_kernels, _library, _optional
from asrkern._report import block, describe
from asrkern.cli.app import app

AVX512 = "avx512f avx512bw avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "has", "avx512"),
    [
        ("sse4_2", "scalar", "not of this CPU"),
        ("avx2", "scalar", "not of this CPU"),
        ("fma avx2", "scalar avx2", "not of this CPU"),
        (f"{AVX512} avx2 fma", "scalar avx2 avx512", "its record is not of these kernels"),
        (f"avx2 fma avx512_vnni {AVX512}", "scalar avx2 avx512 avx512_vnni", "its record is not of these"),
        (f"avx512_vnni {AVX512}", "scalar", "not of this CPU"),
    ],
)
def test_instruction_sets(
    flags: str, has: str, avx512: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(
        f"processor\t: 0\nmodel name\t: A: B\nflags\t\t: {flags}\n\nprocessor\t: 1\nmodel name\t: C\n"
    )
    monkeypatch.delenv("ASRKERN_CPU_ISA", raising=False)
    monkeypatch.setattr(_library, "cpu_isa", lambda: "avx2")
    facts = describe(file)
    assert facts["CPU"] == f"A: B, {os.cpu_count()} logical" and facts["CPU has"] == has
    assert facts["AVX-512"].startswith(avx512)
    if "avx512" in has:
        monkeypatch.setattr(_library, "cpu_isa", lambda: "avx512")
        assert describe(file)["AVX-512"] == "its record is of these kernels"
        monkeypatch.setenv("ASRKERN_CPU_ISA", "avx2")
        assert describe(file)["AVX-512"] == "ASRKERN_CPU_ISA decides"


def test_without_a_file_about_the_cpu(tmp_path: Path) -> None:
    assert describe(tmp_path / "nothing")["CPU has"] == "scalar"


def test_the_instruction_set_that_is_active_is_one_that_the_cpu_has() -> None:
    if Path("/proc/cpuinfo").exists():
        assert describe()["CPU kernels"] in describe()["CPU has"].split()


def test_packages_that_are_missing_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    missing = ("safetensors", "lightning", "numpy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    facts = describe()
    assert facts["safetensors"] == "not installed: pip install 'asrkern[lm]'"
    assert facts["lightning"] == "not installed: pip install 'asrkern[train]'"
    assert facts["numpy"] == "not installed"
    assert set(facts) >= {*_optional.EXTRA_OF, *_gpu_kernels.KERNELS}


def test_a_report_is_a_block_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASRKERN_DATA", f"{Path.home()}/speech")
    monkeypatch.setenv("ASRKERN_CUDA", "off")
    report = block()
    assert report.startswith("```text\nasrkern ") and report.endswith("\n```")
    settings = [line.split(maxsplit=1) for line in report.splitlines() if line.startswith("ASRKERN_")]
    assert ["ASRKERN_DATA", "a path"] in settings and ["ASRKERN_CUDA", "off"] in settings
    assert str(Path.home()) not in report and str(Path(__file__).parents[1]) not in report
    assert CliRunner().invoke(app, ["report"]).stdout == f"{report}\n"


def test_a_report_tells_no_key_and_what_nothing_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASRKERN_API_KEY", "sesame")
    monkeypatch.setenv("ASRKERN_API_KEYS", "sesame")
    facts = describe()
    assert (facts["ASRKERN_API_KEY"], facts["ASRKERN_API_KEYS"]) == ("set", "nothing reads it")
    assert "sesame" not in block()


def test_a_report_needs_no_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(typer=None, rich=None)\n"
        "sys.argv = ['asrkern', 'report']\n"
        "from asrkern.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("```text\n"), done.stderr


@pytest.mark.parametrize("arguments", [[], ["report"], ["report", "--help"]])
def test_a_wrong_setting_is_one_line(arguments: list[str]) -> None:
    environment = {**os.environ, "ASRKERN_CPU_ISA": "sse"}
    command = [sys.executable, "-m", "asrkern", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "--help" in arguments:
        assert done.returncode == 0
    else:
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "ASRKERN_CPU_ISA: expected scalar, avx2, avx512 or avx512_vnni, received sse" in done.stderr
