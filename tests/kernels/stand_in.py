"""Runs ``_gpu_small.py`` with the CPU in the device's place: ``python -m tests.kernels.stand_in FOLDER KERNEL [BEHAVIOUR]``.

The kernels are emulated, by what FOLDER has of gru_host.py and team_search.py, or run in Triton's interpreter; in
float32, which it computes as a GPU does, the first two cases at toy sizes. BEHAVIOUR: "fails" gives wrong values,
"hangs" never ends and "dies" aborts, each after the first case.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import sys
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from asrkern import ops
from benchmarks._timing import relative_error
from benchmarks.qualification import _gpu_small
from tests.kernels import team_search
from tests.kernels.gru_host import SM_90, HostGRU


class EmulatedGRU(torch.autograd.Function):
    """ops.gru over kernels/rnn/cuda/gru_cta.cuh on the CPU."""

    @staticmethod
    def forward(ctx, library, lengths, x, *weights):
        directions = [weights[:4], weights[4:]]
        ctx.gru = HostGRU(
            library, x, directions, None, lengths.tolist(), packed=False, batch_first=False, device=SM_90
        )
        return ctx.gru.forward()

    @staticmethod
    def backward(ctx, grad_output, grad_h_n):
        of_x, _, *of_weights = ctx.gru.backward(grad_output, grad_h_n)
        return None, None, of_x, *(grad[direction] for direction in range(2) for grad in of_weights)


@contextlib.contextmanager
def emulated(kernel: str, folder: Path):
    """While it is entered, the operation of a kernel is computed by the kernel."""
    if kernel.startswith("gru"):
        library = ctypes.CDLL(str(folder / "libgru_emulated.so"))

        def gru(x, weights, weights_reverse, lengths):
            return EmulatedGRU.apply(library, lengths, x, *weights, *weights_reverse)

        with mock.patch.object(ops, "gru", gru):
            yield
    elif kernel == "ctc_beam_search":

        def search(log_probs, lengths, **options):
            return team_search.search(folder / "ctc_beam_search", log_probs, lengths, threads=2, **options)

        with mock.patch.object(ops, "ctc_beam_search", search):
            yield
    else:
        from tests.kernels.on_the_cpu import OnTheCPU  # needs Triton

        with OnTheCPU():
            yield


def misbehave(behaviour: str, found: list[Tensor]) -> list[Tensor]:
    if behaviour == "hangs":
        # Without letting go of the interpreter, as a wait for a device.
        ctypes.PyDLL(None).pause()
    if behaviour == "dies":
        os.abort()
    return [t + 1 for t in found]


def main(folder: Path, kernel: str, behaviour: str | None = None) -> int:
    cases = 0

    def error_of(case: _gpu_small.Case) -> float:
        nonlocal cases
        cases += 1
        expected = case.run("cpu", torch.float64)
        with emulated(kernel, folder):
            found = [t.detach() for t in case.run("cpu", None)]
        if behaviour and cases > 1:
            found = misbehave(behaviour, found)
        return relative_error([t.detach() for t in expected], found)

    _gpu_small.error_of = error_of
    _gpu_small.GRU_SHAPES, _gpu_small.CONV_SIZE = ((5, 1), (40, 3)), (7, 12)
    _gpu_small.TOLERANCES = {torch.float32: _gpu_small.TOLERANCES[torch.float32]}
    _gpu_small._library.cuda_kernel = lambda name: True
    all_cases = _gpu_small.CASES[kernel]
    _gpu_small.CASES[kernel] = lambda: itertools.islice(all_cases(), 2)
    return _gpu_small.main(kernel)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
