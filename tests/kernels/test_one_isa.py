"""Files that are compiled for one instruction set define nothing that the linker would take for all of them."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_no_function_is_merged_with_those_of_other_files(tmp_path):
    # With little optimisation, so that what is not told to be part of its callers is a function.
    subprocess.run(
        ["c++", "-std=c++20", "-O1", "-I", ROOT, "-c", ROOT / "kernels/ctc/cpu/isa_scalar.cpp", "-o", "isa.o"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    names = subprocess.run(["nm", "-C", "isa.o"], cwd=tmp_path, check=True, capture_output=True, text=True)
    symbols = [line.split(maxsplit=2) for line in names.stdout.splitlines() if not line.startswith(" ")]
    assert "D" in {kind for _, kind, _ in symbols}, "the table is missing"
    assert not [name for _, kind, name in symbols if kind in "WVu"]
