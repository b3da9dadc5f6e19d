"""``python -m asrkern``: what is active on this machine; ``python -m asrkern models``: the models and what they cost."""

from __future__ import annotations

import argparse
import importlib.util
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

import asrkern
from asrkern import _library
from asrkern._optional import import_torchaudio

OPTIONAL = ("triton", "soundfile", "matplotlib", "pytest", "hypothesis")


def _cuda() -> str:
    if torch.version.cuda is None:
        return "none: this torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"none: torch has CUDA {torch.version.cuda} but finds no device"
    kernels = "on" if _library.cuda_kernels() else "off (no record of a check; ASRKERN_CUDA=force takes them)"
    built = kernels if _library.CUDA_BUILT else "not built"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, kernels {built}"


def _torchaudio() -> str:
    try:
        return import_torchaudio().__version__
    except ImportError as error:
        return str(error)


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
        "threads": str(torch.get_num_threads()),
        "CUDA": _cuda(),
        "torchaudio": _torchaudio(),
        **{name: _package(name) for name in OPTIONAL},
    }


def list_models() -> list[str]:
    """One line a model: name, parameters, operations per second of audio; then how they are counted."""
    # Only here: it takes as long to import as torch.
    from asrkern import models
    from asrkern.models.cost import TOKENS_PER_SECOND, cost

    lines = [f"{'model':<22}{'parameters':>12}{'GFLOP per s of audio':>22}{'utterance':>11}"]
    for name in models.list():
        parameters, flops, seconds = cost(name)
        lines.append(f"{name:<22}{parameters / 1e6:>10.1f} M{flops / 1e9:>22.2f}{seconds:>9.0f} s")
    lines.append(
        "Inference with one utterance of that length; matrix products and convolutions, a multiply-add counted "
        f"as 2. Spellers (las) write {TOKENS_PER_SECOND} tokens for each second."
    )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m asrkern", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["models"], help="default: what is active here")
    if parser.parse_args(argv).what == "models":
        print("\n".join(list_models()))
    else:
        for name, value in describe().items():
            print(f"{name:<12} {value}")


if __name__ == "__main__":
    main()
