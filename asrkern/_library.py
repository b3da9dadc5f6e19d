"""Loads the shared objects and knows what is available."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent


def _load(name: str) -> None:
    path = _FOLDER / f"{name}.so"
    if not path.is_file():
        raise ImportError(
            f"asrkern: {name}.so is not built; run `pip install -e .` in the source tree, or install a wheel"
        )
    torch.ops.load_library(str(path))


def cpu_isa() -> str:
    """The instruction set of the CPU kernels: "scalar", "avx2" or "avx512".

    Raises:
        RuntimeError: ASRKERN_CPU_ISA names an unknown instruction set or one that this CPU does not have.
    """
    return torch.ops.asrkern.cpu_isa()


def cuda_kernels() -> bool:
    """Whether the CUDA kernels run: they are built, there is a device, and ASRKERN_CUDA=force asks for them.

    They are not taken by default until a record of a passing check on a GPU is part of the package.
    """
    return CUDA_BUILT and os.environ.get("ASRKERN_CUDA") == "force"


_load("_C")
# A torch without CUDA lacks the symbols that _C_cuda needs.
CUDA_BUILT = torch.cuda.is_available() and (_FOLDER / "_C_cuda.so").is_file()
if CUDA_BUILT:
    _load("_C_cuda")
