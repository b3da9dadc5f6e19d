"""Triton's kernels without a GPU: in its interpreter against the reference, and compiled for the GPUs they are for.

Both need a process of their own: the interpreter is chosen when Triton is imported, and the compiler needs a stand-in
for the driver.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

pytest.importorskip("triton")


def run(*args: object, **environment: str) -> str:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment}
    result = subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


INTERPRETED = sorted(FOLDER.glob("interpreted_*.py"))
CAPABILITIES = (80, 90)
#: Kernels that write the dtype of their input, from float32.
ROUNDED = {"masked_conv2d", "normalise", "input_gradient"}


@pytest.fixture(scope="module")
def printed():
    """What each process prints, as futures; two run at a time."""
    with ThreadPoolExecutor(2) as pool:
        # ASRKERN_CHECK fills outputs with NaN before a kernel runs.
        interpreter = {"TRITON_INTERPRET": "1", "ASRKERN_CHECK": "1"}
        runs = {path: pool.submit(run, "-m", "pytest", "-q", path, **interpreter) for path in INTERPRETED}
        runs |= {n: pool.submit(run, FOLDER / "compile_triton.py", n) for n in CAPABILITIES}
        yield runs
        pool.shutdown(cancel_futures=True)


@pytest.mark.skipif(
    version("triton").startswith("3.6.") and np.lib.NumpyVersion(np.__version__) >= "2.4.0",
    reason="the interpreter of Triton 3.6 does not know NumPy 2.4",
)
@pytest.mark.parametrize("path", INTERPRETED, ids=lambda path: path.stem)
def test_interpreted(path, printed):
    summary = printed[path].result()
    assert "passed" in summary and "skipped" not in summary


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_compiles(capability, printed):
    compiled = [json.loads(line) for line in printed[capability].result().splitlines()]
    assert {kernel["name"] for kernel in compiled} == {
        "unfold", "pack_weight", "masked_conv2d", "piece_statistics", "merge_statistics", "normalise",
        "piece_gradients", "merge_gradients", "input_gradient",
    }  # fmt: skip
    # What a block may ask for on an A100 and on an H100.
    shared = {80: 163, 90: 227}[capability] * 1024
    for kernel in compiled:
        assert kernel["stack"] == 0, f"spills: {kernel}"
        assert kernel["shared"] <= shared, kernel
        # To nearest. The interpreter cuts off, and computes with bfloat16's bits: it can say nothing of bfloat16.
        stores = kernel["dtype"] == "torch.bfloat16" and kernel["name"] in ROUNDED
        assert kernel["to_bfloat16"] == (["rn"] if stores else []), kernel
        if kernel["name"] == "masked_conv2d" and kernel["precision"] != "ieee":
            assert kernel["tensor_core_instructions"] > 0, kernel
            assert kernel["async_copy_bytes"] == [16], kernel
