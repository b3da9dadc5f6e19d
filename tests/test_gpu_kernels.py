"""Which GPU kernels run: only those that passed a check with the very sources they are built from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asrkern import _gpu_kernels, _library
from asrkern._gpu_kernels import changed_sources, checked_kernels, read_record, sources

NAMES = ("batch_norm_act", "masked_conv2d")  # one of nvcc, one of Triton


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository with a CUDA kernel of three files and a Triton kernel of two."""
    files = {
        "kernels/norm/cuda/bn.cu": '#include <cuda.h>\n#include "kernels/norm/cuda/bn.h"\n#include "other/away.h"\n',
        "kernels/norm/cuda/bn.h": '  # include "kernels/common/math.h"\n#include "kernels/norm/cuda/bn.h"\n',
        "kernels/common/math.h": "",
        "kernels/conv/triton/conv.py": "from asrkern._triton import tiles\n",
        "kernels/conv/triton/tiles.py": "",
        "kernels/conv/triton/unused.py": "",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "asrkern/_triton").mkdir(parents=True)
    for name in ("tiles.py", "unused.py"):
        (tmp_path / "asrkern/_triton" / name).symlink_to(f"../../kernels/conv/triton/{name}")
    made_of = {NAMES[0]: ("kernels/norm/cuda/bn.cu",), NAMES[1]: ("kernels/conv/triton/conv.py",)}
    monkeypatch.setattr(_gpu_kernels, "KERNELS", made_of)
    return tmp_path


def passing(tree):
    about = {"passed": True, "device": "GPU X", "capability": [9, 0], "date": "2026-01-01"}
    return {name: {**about, "sources": sources(name, tree)} for name in NAMES}


def test_a_kernels_sources_are_what_it_includes(tree):
    assert list(sources(NAMES[0], tree)) == [
        "kernels/common/math.h",
        "kernels/norm/cuda/bn.cu",
        "kernels/norm/cuda/bn.h",
    ]
    assert list(sources(NAMES[1], tree)) == ["kernels/conv/triton/conv.py", "kernels/conv/triton/tiles.py"]


def test_a_passing_record_of_these_sources_counts(tree):
    checked = checked_kernels(passing(tree), tree)
    assert checked == {
        name: {"device": "GPU X", "capability": [9, 0], "date": "2026-01-01"} for name in NAMES
    }


@pytest.mark.parametrize("path", ["kernels/norm/cuda/bn.cu", "kernels/common/math.h"])
def test_a_change_in_any_source_takes_the_kernel_back(tree, path):
    record = passing(tree)
    (tree / path).write_text((tree / path).read_text() + "\n")
    assert list(checked_kernels(record, tree)) == [NAMES[1]]
    assert changed_sources(NAMES[0], record[NAMES[0]], tree) == [path]


def test_a_new_source_takes_the_kernel_back(tree):
    record = passing(tree)
    del record[NAMES[1]]["sources"]["kernels/conv/triton/tiles.py"]
    assert list(checked_kernels(record, tree)) == [NAMES[0]]


def test_a_failed_or_unrecorded_kernel_does_not_count(tree):
    record = passing(tree)
    record[NAMES[0]]["passed"] = False
    del record[NAMES[1]]
    assert checked_kernels(record, tree) == {}


def test_a_missing_source_never_counts(tree):
    (tree / "kernels/conv/triton/tiles.py").unlink()
    assert list(checked_kernels(passing(tree), tree)) == [NAMES[0]]


def test_no_record(tmp_path):
    assert read_record(tmp_path / "none.json") == {}


def test_the_build_writes_what_the_record_says(tmp_path):
    root = tmp_path / "root"
    for path, text in {
        "asrkern/_gpu_kernels.py": Path(_gpu_kernels.__file__).read_text(),
        **dict.fromkeys(_gpu_kernels.KERNELS[NAMES[1]], ""),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    check = {**passing(root)[NAMES[1]], "sources": sources(NAMES[1], root)}
    (root / "benchmarks/results").mkdir(parents=True)
    (root / _gpu_kernels.RECORD).write_text(json.dumps({"kernels": {NAMES[1]: check}}))
    subprocess.run([sys.executable, root / "asrkern/_gpu_kernels.py", tmp_path / "out.json"], check=True)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == {NAMES[1]: {"device": "GPU X", "capability": [9, 0], "date": "2026-01-01"}}


@pytest.fixture
def device(monkeypatch):
    """A pretended device of compute capability 9.x with all device code; nothing is checked."""
    monkeypatch.delenv("ASRKERN_CUDA", raising=False)
    monkeypatch.setattr(_library, "CUDA_BUILT", True)
    monkeypatch.setattr(_library, "_TRITON", True)
    monkeypatch.setattr(_library, "_device_generation", lambda: 9)
    monkeypatch.setattr(_library, "checked_kernels", dict)
    return monkeypatch


def test_without_a_record_a_kernel_is_off_unless_forced(device):
    assert not any(map(_library.cuda_kernel, _gpu_kernels.KERNELS))
    device.setenv("ASRKERN_CUDA", "force")
    assert all(map(_library.cuda_kernel, _gpu_kernels.KERNELS))


@pytest.mark.parametrize("capability, runs", [([9, 0], True), ([8, 0], False), ([10, 0], False)])
def test_a_checked_kernel_runs_on_the_generation_it_was_checked_on(device, capability, runs):
    device.setattr(_library, "checked_kernels", lambda: {"gru_forward": {"capability": capability}})
    assert _library.cuda_kernel("gru_forward") is runs
    assert not _library.cuda_kernel("gru_backward")
    device.setenv("ASRKERN_CUDA", "off")
    assert not _library.cuda_kernel("gru_forward")


@pytest.mark.parametrize("code, lost", [("CUDA_BUILT", "gru_forward"), ("_TRITON", "masked_conv2d")])
def test_a_kernel_without_its_code_never_runs(device, code, lost):
    device.setenv("ASRKERN_CUDA", "force")
    device.setattr(_library, code, False)
    assert not _library.cuda_kernel(lost)
    assert _library.cuda_kernel({"gru_forward": "masked_conv2d"}.get(lost, "gru_forward"))


def test_nothing_runs_without_a_device(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    monkeypatch.setenv("ASRKERN_CUDA", "force")
    assert not any(map(_library.cuda_kernel, _gpu_kernels.KERNELS))


def test_unknown_names_and_settings_are_refused(device):
    with pytest.raises(KeyError):
        _library.cuda_kernel("gru")
    device.setenv("ASRKERN_CUDA", "yes")
    with pytest.raises(RuntimeError, match="expected force or off, received yes"):
        _library.cuda_kernel("gru_forward")


def test_tracing_takes_the_answer_as_a_constant(device):
    device.setattr(_library, "checked_kernels", lambda: {"gru_forward": {"capability": [9, 0]}})

    @torch.compile(fullgraph=True, backend="eager")
    def f(x):
        return x + 1 if _library.cuda_kernel("gru_forward") else x - 1

    assert f(torch.zeros(2)).tolist() == [1, 1]
