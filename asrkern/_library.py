"""Loads the shared objects and knows what is available."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from pathlib import Path

import torch

from asrkern._gpu_kernels import CHECKED, is_triton

_FOLDER = Path(__file__).parent
# Whose stable interface _C is compiled for.
_OLDEST_TORCH = (2, 10)


def _check_torch(version: str) -> None:
    """Raises before _C would be refused for a symbol that this torch lacks."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers or (int(numbers[1]), int(numbers[2])) < _OLDEST_TORCH:
        needed = ".".join(map(str, _OLDEST_TORCH))
        raise ImportError(
            f"asrkern: expected torch >= {needed}, found {version}; pip install 'torch>={needed}'"
        )


def _load(name: str) -> None:
    path = _FOLDER / f"{name}.so"
    if not path.is_file():
        raise ImportError(
            f"asrkern: {name}.so is not built; run `pip install -e .` in the source tree, or install a wheel"
        )
    torch.ops.load_library(str(path))


def cpu_isa() -> str:
    """The instruction set of the CPU kernels: "scalar", "avx2", "avx512" or "avx512_vnni".

    Raises:
        RuntimeError: ASRKERN_CPU_ISA names an unknown instruction set or one that this CPU does not have.
    """
    return torch.ops.asrkern.cpu_isa()


@functools.cache
def checked_kernels() -> dict[str, dict]:
    """The GPU kernels that had passed gpu_check.py when this package was built: kernel → device, capability, date."""
    return json.loads(CHECKED.read_text()) if CHECKED.is_file() else {}


@functools.cache
def _device_generation() -> int:
    return torch.cuda.get_device_capability()[0]


def cuda_kernel(name: str) -> bool:
    """Whether asrkern's own GPU kernel ``name`` runs on the current device; otherwise torch's kernels do.

    It does where its code and a device are there and it passed ``benchmarks/qualification/gpu_check.py``, with the sources
    it was built from, on a device of this generation (major compute capability). ASRKERN_CUDA=force takes it without
    that, ASRKERN_CUDA=off takes none.

    Raises:
        KeyError: there is no such kernel.
        RuntimeError: ASRKERN_CUDA is something else.
    """
    switch = os.environ.get("ASRKERN_CUDA", "")
    if switch not in ("", "off", "force"):
        raise RuntimeError(f"ASRKERN_CUDA: expected force or off, received {switch}")
    if not (_TRITON if is_triton(name) else CUDA_BUILT) or switch == "off":
        return False
    if switch == "force":
        return True
    checked = checked_kernels().get(name)
    return checked is not None and checked["capability"][0] == _device_generation()


# What torch.compiler.assume_constant_result sets; that function imports TorchDynamo, which takes seconds.
cuda_kernel._dynamo_marked_constant = True  # type: ignore[attr-defined]

_check_torch(torch.__version__)
_load("_C")
# A torch without CUDA lacks the symbols that _C_cuda needs.
_DEVICE = torch.cuda.is_available()
CUDA_BUILT = _DEVICE and (_FOLDER / "_C_cuda.so").is_file()
if CUDA_BUILT:
    _load("_C_cuda")
_TRITON = _DEVICE and importlib.util.find_spec("triton") is not None
