"""Registers, shared memory and spills of each CUDA kernel, from what ptxas said while it was compiled.

    cmake --build BUILD --target cuda_check >build.log 2>&1; python benchmarks/qualification/ptxas_report.py build.log

One line for each kernel and architecture. The exit status is 1 if a kernel spills registers to memory or has more local
memory than it is allowed to, or if the log holds no kernel.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.qualification._kernel_names import readable

#: Kernels that may spill, as their line here begins, with the reason.
ALLOWED_SPILLS: dict[str, str] = {}

#: Kernels that may have so many bytes of local memory, with the reason.
ALLOWED_STACKS: dict[str, tuple[int, str]] = {
    "ctc_beam_search_row": (88, "two states of a language model, which functions get by address"),
}

_ENTRY = re.compile(r"Compiling entry function '(?P<symbol>[^']+)' for '(?P<arch>[^']+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


class Kernel(NamedTuple):
    """What one kernel takes on one architecture; all but registers (of a thread) in bytes.

    stack: local memory of a thread, and spilled: what registers did not hold, written and read, with the functions
    it calls; shared: static shared memory of a block.
    """

    name: str
    arch: str
    registers: int
    shared: int
    stack: int
    spilled: int

    def __str__(self) -> str:
        text = f"{self.name}  {self.arch}  {self.registers} registers"
        text += f", {self.shared} B shared" if self.shared else ""
        text += f", {self.stack} B stack" if self.stack else ""
        return text + (f", SPILLS {self.spilled} B" if self.spilled else "")


def parse(log: str) -> list[Kernel]:
    """The kernels in the output of ``nvcc -Xptxas -v``, by name and architecture."""
    found: list[Kernel] = []
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            found.append(Kernel(entry["symbol"], entry["arch"], 0, 0, 0, 0))
        elif found and (sizes := _SPILLS.search(line)):
            # The kernel's own, then those of the functions that it calls.
            stack, stores, loads = map(int, sizes.groups())
            last = found[-1]
            found[-1] = last._replace(stack=last.stack + stack, spilled=last.spilled + stores + loads)
        elif found and (used := _USED.search(line)):
            shared = _SHARED.search(line)
            found[-1] = found[-1]._replace(registers=int(used[1]), shared=int(shared[1]) if shared else 0)
    names = readable([kernel.name for kernel in found])
    return sorted(kernel._replace(name=name) for kernel, name in zip(found, names))


def unexpected_spills(kernels: Iterable[Kernel]) -> list[Kernel]:
    return [k for k in kernels if k.spilled and not any(k.name.startswith(name) for name in ALLOWED_SPILLS)]


def unexpected_stacks(kernels: Iterable[Kernel]) -> list[Kernel]:
    return [k for k in kernels if k.stack > ALLOWED_STACKS.get(k.name, (0, ""))[0]]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path, help="output of the build")
    kernels = parse(parser.parse_args(argv).log.read_text())
    print("\n".join(map(str, kernels)))
    for kernel in unexpected_spills(kernels):
        print(f"FAILED: {kernel.name} spills on {kernel.arch} and is not in ALLOWED_SPILLS")
    for kernel in unexpected_stacks(kernels):
        print(
            f"FAILED: {kernel.name} has {kernel.stack} B of local memory on {kernel.arch}, more than ALLOWED_STACKS"
        )
    if not kernels:
        print("FAILED: no kernel in the log")
    return 1 if not kernels or unexpected_spills(kernels) or unexpected_stacks(kernels) else 0


if __name__ == "__main__":
    sys.exit(main())
