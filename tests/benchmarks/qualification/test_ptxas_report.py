"""benchmarks/qualification/ptxas_report.py: what nvcc 13.0 says, read."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.qualification import ptxas_report
from benchmarks.qualification.ptxas_report import Kernel, main, parse

CLEAN = """
[1/3] Building CUDA object CMakeFiles/cuda_objects.dir/kernels/cuda/batch_norm_act.cu.o
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN7asrkern4cuda50_GLOBAL__N__17de69f3_17_batch_norm_act_cu_7f2f75959normaliseENS0_21BatchNormActInferenceEl' for 'sm_80'
ptxas info    : Function properties for _ZN7asrkern4cuda50_GLOBAL__N__17de69f3_17_batch_norm_act_cu_7f2f75959normaliseENS0_21BatchNormActInferenceEl
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 34 registers, used 0 barriers, 480 bytes cmem[0]
ptxas info    : Compile time = 304.311 ms
"""
CALLS = """
ptxas info    : Compiling entry function '_ZN7asrkern4cuda4kernI13__nv_bfloat16Li8ELb0EEEvPKfPT_i' for 'sm_90a'
ptxas info    : Function properties for _ZN7asrkern4cuda4kernI13__nv_bfloat16Li8ELb0EEEvPKfPT_i
    272 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 272 bytes cumulative stack size, 512 bytes smem
ptxas info    : Function properties for _ZN7asrkern4cuda6helperEPKfi
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
"""
needs_demangler = pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt")


@needs_demangler
def test_kernels_with_their_resources():
    assert parse(CALLS + CLEAN) == [
        Kernel("kern<__nv_bfloat16, 8, false>", "sm_90a", 64, 512, 288, 12),
        Kernel("normalise", "sm_80", 34, 0, 0, 0),
    ]
    assert parse("") == []


def test_spills_fail_unless_allowed(tmp_path, capsys, monkeypatch):
    log = tmp_path / "log"
    log.write_text(CLEAN)
    assert main([str(log)]) == 0
    log.write_text(CLEAN + CALLS)
    assert main([str(log)]) == 1
    assert "SPILLS 12 B" in capsys.readouterr().out
    (name,) = (kernel.name for kernel in parse(CALLS))
    monkeypatch.setattr(ptxas_report, "ALLOWED_SPILLS", {name: "a reason"})
    monkeypatch.setattr(ptxas_report, "ALLOWED_STACKS", {name: (288, "a reason")})
    assert main([str(log)]) == 0
    capsys.readouterr()


@needs_demangler
def test_local_memory_fails_beyond_what_is_allowed(tmp_path, capsys, monkeypatch):
    log = tmp_path / "log"
    log.write_text(CALLS.replace("4 bytes spill stores, 8", "0 bytes spill stores, 0"))
    (name,) = (kernel.name for kernel in parse(CALLS))
    for allowed, status in ({}, 1), ({name: (287, "a reason")}, 1), ({name: (288, "a reason")}, 0):
        monkeypatch.setattr(ptxas_report, "ALLOWED_STACKS", allowed)
        assert main([str(log)]) == status
        assert (f"FAILED: {name} has 288 B of local memory on sm_90a" in capsys.readouterr().out) == bool(
            status
        )


def test_a_log_without_kernels_fails(tmp_path, capsys):
    (tmp_path / "log").write_text("ninja: no work to do.\n")
    assert main([str(tmp_path / "log")]) == 1
    assert "no kernel" in capsys.readouterr().out
