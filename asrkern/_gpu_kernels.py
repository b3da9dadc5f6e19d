"""Which sources make each GPU kernel, and which kernels have passed their check on a GPU with exactly these sources.

``benchmarks/qualification/gpu_check.py`` records a check in ``benchmarks/results/gpu.json`` with the SHA-256 of each
source. Every build runs this file (CMakeLists.txt; it needs neither torch nor asrkern), which compares that record with
the sources and writes the kernels that pass to ``_gpu_checked.json`` beside it. Only these run by default.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

_LAUNCHERS = (
    "asrkern/ops/_launch.py",
    "asrkern/ops/_batch_norm_act_cuda.py",
    "asrkern/ops/_masked_conv2d_cuda.py",
)
#: Kernel → the files it starts from, in the repository; the first defines it. The headers and modules of kernels/ that
#: they include count too.
KERNELS: dict[str, tuple[str, ...]] = {
    "gru_forward": ("kernels/rnn/cuda/gru_fwd.cu", "kernels/rnn/cuda/gru_order.cu", "csrc/ops/gru_cuda.cpp"),
    "gru_backward": ("kernels/rnn/cuda/gru_bwd.cu", "kernels/rnn/cuda/gru_order.cu", "csrc/ops/gru_cuda.cpp"),
    "batch_norm_act": ("kernels/norm/triton/batch_norm_act.py", *_LAUNCHERS[:2]),
    "masked_conv2d": ("kernels/conv/triton/masked_conv2d.py", *_LAUNCHERS),
    "ctc_beam_search": ("kernels/ctc/cuda/ctc_beam_search.cu", "csrc/ops/ctc_beam_search_cuda.cpp"),
}
CHECKED = Path(__file__).with_name("_gpu_checked.json")
RECORD = "benchmarks/results/gpu.json"

_INCLUDE = re.compile(r'^\s*#\s*include\s+"(kernels/[^"]+)"', re.MULTILINE)
_IMPORT = re.compile(r"\basrkern\._triton(?:\.| import )(\w+)")


def is_triton(name: str) -> bool:
    """Whether the kernel is compiled by Triton when it first runs; the others are in _C_cuda."""
    return not any(path.endswith(".cu") for path in KERNELS[name])


def sources(name: str, root: Path) -> dict[str, str]:
    """Every source of a kernel in the repository at ``root``: path → SHA-256, "missing" for what is not there."""
    return with_included(KERNELS[name], root)


def with_included(paths: Iterable[str], root: Path) -> dict[str, str]:
    """Files of the repository at ``root`` and all of kernels/ that they include, in the same way."""
    found: dict[str, str] = {}
    waiting = list(paths)
    while waiting:
        # asrkern/_triton holds links to files of kernels/.
        path = (root / waiting.pop()).resolve().relative_to(root.resolve()).as_posix()
        if path in found:
            continue
        if not (root / path).is_file():
            found[path] = "missing"
            continue
        content = (root / path).read_bytes()
        found[path] = hashlib.sha256(content).hexdigest()
        text = content.decode()
        waiting += _INCLUDE.findall(text)
        waiting += [f"asrkern/_triton/{module}.py" for module in _IMPORT.findall(text)]
    return dict(sorted(found.items()))


def read_record(path: Path) -> dict[str, dict]:
    """The checks that gpu_check.py wrote: kernel → what passed, where, when and with which sources; {} without one."""
    return json.loads(path.read_text())["kernels"] if path.is_file() else {}


def changed_sources(name: str, check: dict, root: Path) -> list[str]:
    """The sources that differ from those that the check of a kernel saw."""
    now, then = sources(name, root), check.get("sources", {})
    return sorted(path for path in {*now, *then} if now.get(path) != then.get(path))


def checked_kernels(record: dict[str, dict], root: Path) -> dict[str, dict]:
    """The kernels of a record that passed and are still the same: kernel → device, its compute capability, date."""
    return {
        name: {key: record[name][key] for key in ("device", "capability", "date")}
        for name in KERNELS
        if name in record
        and record[name]["passed"]
        and not changed_sources(name, record[name], root)
        and "missing" not in sources(name, root).values()
    }


if __name__ == "__main__":
    _root = Path(__file__).resolve().parents[1]
    _checked = checked_kernels(read_record(_root / RECORD), _root)
    Path(sys.argv[1]).write_text(json.dumps(_checked, indent=2) + "\n")
