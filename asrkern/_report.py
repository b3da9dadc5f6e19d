"""What decides what runs here, as ``python -m asrkern`` and ``asrkern report`` print it."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import asrkern
from asrkern import _library, _optional, _threads
from asrkern._environment import VARIABLES
from asrkern._gpu_kernels import KERNELS

NEEDED = ("numpy", "triton", "soundfile", "soxr")
# Of the tests and of benchmarks' peers.
OTHERS = ("torchaudio", "transformers", "pytest", "hypothesis")
# Instruction set → what Linux calls the parts of it that its kernels need, beside those of the sets before it.
_FLAGS = {
    "scalar": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512_vnni": {"avx512_vnni"},
}


def describe(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Versions, CPU, instruction sets, kernels, threads, packages and asrkern's environment variables: name → value.

    Args:
        cpuinfo: Linux's file about the CPU.

    Raises:
        RuntimeError: ASRKERN_CPU_ISA or ASRKERN_CUDA has a wrong value.
    """
    about = _about_cpu(cpuinfo)
    available = _available(set(about.get("flags", "").split()))
    return {
        "asrkern": asrkern.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "torch": torch.__version__,
        "OS": platform.platform(),
        "CPU": f"{about.get('model name', platform.machine())}, {os.cpu_count()} logical",
        "CPU kernels": _library.cpu_isa(),
        "CPU has": " ".join(available),
        "AVX-512": _avx512(available),
        "threads": f"{torch.get_num_threads()}, by {_threads.choose().reason}",
        "CUDA": _cuda(),
        **{name: _kernel(name) for name in KERNELS},
        **{name: _package(name) for name in (*NEEDED, *_optional.EXTRA_OF, *OTHERS)},
        **{
            name: _setting(name, value)
            for name, value in sorted(os.environ.items())
            if name.startswith("ASRKERN_")
        },
    }


def lines() -> str:
    """A line for each of :func:`describe`."""
    facts = describe()
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}} {value}" for name, value in facts.items())


def block() -> str:
    """The same as a block of Markdown."""
    return f"```text\n{lines()}\n```"


def _about_cpu(cpuinfo: Path) -> dict[str, str]:
    """The first CPU's entries; none where there is no such file."""
    try:
        first, _, _ = cpuinfo.read_text("utf-8", "replace").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _available(flags: set[str]) -> list[str]:
    found = []
    for isa, needed in _FLAGS.items():
        if not needed <= flags:
            break
        found.append(isa)
    return found


def _avx512(available: list[str]) -> str:
    """Whether the kernels were checked on such a CPU as they are, which the build decided."""
    if "avx512" not in available:
        return "not of this CPU"
    if os.environ.get("ASRKERN_CPU_ISA"):
        return "ASRKERN_CPU_ISA decides"
    if _library.cpu_isa().startswith("avx512"):
        return "its record is of these kernels"
    return "its record is not of these kernels: ASRKERN_CPU_ISA takes it"


def _cuda() -> str:
    if torch.version.cuda is None:
        return "none: this torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"none: torch has CUDA {torch.version.cuda} but finds no device"
    built = "built" if _library.CUDA_BUILT else "not built"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, kernels {built}"


def _kernel(name: str) -> str:
    checked = _library.checked_kernels().get(name)
    state = f"checked on {checked['device']}, {checked['date']}" if checked else "unverified"
    return f"{'on' if _library.cuda_kernel(name) else 'off'}, {state}"


def _package(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        extra = _optional.EXTRA_OF.get(name)
        return f"not installed: {_optional.install(extra)}" if extra else "not installed"
    try:
        return version(name)
    except PackageNotFoundError:
        return "installed"


def _setting(name: str, value: str) -> str:
    """Of an environment variable. Keys, and where a person's files are, are theirs."""
    known = VARIABLES.get(name)
    if known is None:
        return "nothing reads it"
    if known.secret:
        return "set"
    return "a path" if {"/", os.sep} & set(value) else value
