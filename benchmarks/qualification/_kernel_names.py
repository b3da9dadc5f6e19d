"""Names of GPU kernels: in the sources, in what compilers and profilers print, and as tables show them. No torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

_GLOBAL = re.compile(r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\([^)]*\)\s*)?(?:void\s+)?(\w+)\s*\(")
_JIT = re.compile(r"@triton\.jit(?:\([^)]*\))?\s+def\s+([a-z]\w*)")


def cuda_functions(sources: Iterable[Path]) -> list[str]:
    """Names of the ``__global__`` functions of CUDA sources."""
    return [name for path in sources if path.suffix != ".py" for name in _GLOBAL.findall(path.read_text())]


def triton_functions(sources: Iterable[Path]) -> list[str]:
    """Names of the functions of Triton sources that are launched: those without an underscore before them."""
    return [name for path in sources if path.suffix == ".py" for name in _JIT.findall(path.read_text())]


def own_kernels(run: dict[str, float], sources: Iterable[Path]) -> dict[str, float]:
    """Those of the kernels that ran (demangled name → milliseconds) that some sources define."""
    sources = list(sources)
    patterns = [rf"\basrkern::.*\b{name}\b" for name in cuda_functions(sources)]
    patterns += [rf"^{name}\b" for name in triton_functions(sources)]
    return {name: time for name, time in run.items() if any(re.search(p, name) for p in patterns)}


def readable(symbols: Iterable[str]) -> list[str]:
    """:func:`short_name` of mangled and other names; mangled ones stay as they are where c++filt is missing."""
    symbols = list(symbols)
    if symbols and shutil.which("c++filt"):
        shown = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True)
        symbols = shown.stdout.splitlines()
    return [short_name(symbol) for symbol in symbols]


def short_name(demangled: str) -> str:
    """``void asrkern::cuda::(anonymous namespace)::f<(int)8>(int)`` → ``f<8>``."""
    name = demangled.replace("(anonymous namespace)::", "").removeprefix("void ")
    name = re.sub(r"\basrkern::(cuda::)?", "", name)
    name = re.sub(r"\((?:int|unsigned int|long|bool)\)", "", name)
    return re.sub(r"\(.*", "", name)
