"""``python -m asrkern``, also ``asrkern``: runs a command; without one says what is active on this machine."""

from __future__ import annotations

import importlib.util
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

import asrkern
from asrkern import _library, _threads
from asrkern._gpu_kernels import KERNELS

OPTIONAL = (
    "triton",
    "soundfile",
    "soxr",
    "safetensors",
    "typer",
    "rich",
    "lightning",
    "lhotse",
    "pydantic",
    "rapidfuzz",
    "tensorboard",
    "sentencepiece",
    "matplotlib",
    "pytest",
    "hypothesis",
)


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
        return "not installed"
    try:
        return version(name)
    except PackageNotFoundError:
        return "installed"


def describe() -> dict[str, str]:
    """Everything that decides what runs here, name → value."""
    return {
        "asrkern": asrkern.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "CPU kernels": _library.cpu_isa(),
        "threads": f"{torch.get_num_threads()}, by {_threads.choose().reason}",
        "CUDA": _cuda(),
        **{name: _kernel(name) for name in KERNELS},
        **{name: _package(name) for name in OPTIONAL},
    }


def main() -> None:
    """Run a command, or say what is active."""
    try:
        count, reason = _threads.choose()
    except ValueError as error:
        sys.exit(f"asrkern: {error}")
    if count is not None and len(sys.argv) > 1:
        print(f"asrkern: {count} threads, by {reason}", file=sys.stderr)
    if len(sys.argv) > 1:
        from asrkern.cli import run

        run()
    else:
        for name, value in describe().items():
            print(f"{name:<15} {value}")


if __name__ == "__main__":
    main()
