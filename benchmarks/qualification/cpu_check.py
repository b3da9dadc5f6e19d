"""Self-test of the AVX-512 kernels, whose record lets them be taken by default.

    python benchmarks/qualification/cpu_check.py            runs the tests of operations and beam search with
                                                            ASRKERN_CPU_ISA=avx512_vnni, those of int8 products with
                                                            avx512 too, and, if all pass, writes benchmarks/results/avx512.json
    python benchmarks/qualification/cpu_check.py --stale    lists the kernel sources changed since (exit status 1 if any)

CMakeLists.txt compares the record's SHA-256 sums with the sources: a kernel changed since it was checked is not
taken by default until this has run again on a CPU with AVX-512 VNNI.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

RECORD = ROOT / "benchmarks" / "results" / "avx512.json"
# What is compiled with AVX-512.
FILES = (
    "kernels/common/cpu/isa_avx512.cpp",
    "kernels/common/cpu/isa_avx512_vnni.cpp",
    "kernels/conv/cpu/isa_avx512.cpp",
    "kernels/ctc/cpu/isa_avx512.cpp",
)
# By instruction set; VNNI changes nothing but int8 products.
TESTS = {
    "avx512_vnni": ("tests/ops", "tests/decoder/test_beam_stream.py"),
    "avx512": ("tests/ops/test_int8.py",),
}

# By its path: the package would need torch.
_spec = importlib.util.spec_from_file_location("_gpu_kernels", ROOT / "asrkern" / "_gpu_kernels.py")
_gpu_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_gpu_kernels)


def sums() -> dict[str, str]:
    """SHA-256 of each source that the AVX-512 build is made of, by its path in the repository."""
    return _gpu_kernels.with_included(FILES, ROOT)


def stale() -> list[str]:
    """The sources that the record does not cover as they are now."""
    recorded = json.loads(RECORD.read_text())["sources"] if RECORD.is_file() else {}
    now = sums()
    return sorted(path for path in {*recorded, *now} if recorded.get(path) != now.get(path))


def check() -> int:
    import torch

    from benchmarks._timing import machine

    tests_passed = 0
    for isa, tests in TESTS.items():
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            cwd=ROOT, env={**os.environ, "ASRKERN_CPU_ISA": isa}, capture_output=True, text=True,
        )  # fmt: skip
        print(result.stdout, result.stderr, sep="")
        passed = re.search(r"(\d+) passed", result.stdout)
        if result.returncode or not passed:
            print(f"not recorded: the tests did not all pass with {isa}")
            return 1
        tests_passed += int(passed[1])
    about = machine(torch.device("cpu"))
    record = {
        "cpu": about["cpu"],
        "torch": about["torch"],
        "tests_passed": tests_passed,
        "sources": sums(),
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    print(f"recorded in {RECORD.relative_to(ROOT)}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stale", action="store_true", help="list what changed since the record")
    if not parser.parse_args().stale:
        return check()
    changed = stale()
    print("\n".join(changed) if changed else "the record is current")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
