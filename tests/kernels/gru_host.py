"""The CUDA kernels' GRU, compiled for the CPU (cpp/gru_host.cpp), on tensors."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
SM_80, SM_90 = (108, 163 << 10), (132, 227 << 10)
"""(multiprocessors, bytes of shared memory that a thread block may ask for) of the A100 and of the H100 and H200."""


def _compile(source: str, target: Path, *flags: str) -> None:
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    flags = ["-std=c++20", "-Wall", "-pthread", *flags, f"-I{ROOT}"]
    subprocess.run(
        [*compiler, *flags, str(ROOT / "tests/kernels/cpp" / source), "-o", str(target)], check=True
    )


def build(folder: Path) -> ctypes.CDLL:
    library = folder / "libgru_host.so"
    _compile("gru_host.cpp", library, "-O2", "-shared", "-fPIC")
    return ctypes.CDLL(str(library))


# A vector whose address does not fit its type ends the process, as it ends a kernel.
EMULATED = [
    f"-I{ROOT / 'tests/kernels/cpp/emulated'}",
    *("-O1", "-DASRKERN_EMULATED", "-Wno-unknown-pragmas", "-Wno-unused-function"),
    *("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"),
]


def build_emulated(folder: Path) -> ctypes.CDLL:
    """The same interface, over kernels/rnn/cuda/gru_cta.cuh with a stand-in for the device."""
    library = folder / "libgru_emulated.so"
    _compile("gru_host.cpp", library, *EMULATED, "-shared", "-fPIC")
    return ctypes.CDLL(str(library))


def build_program(folder: Path, name: str) -> Path:
    """cpp/NAME.cpp, on the same stand-in."""
    _compile(f"{name}.cpp", folder / name, *EMULATED)
    return folder / name


def find_races(folder: Path) -> subprocess.CompletedProcess:
    """Run cpp/gru_race.cpp under ThreadSanitizer, without the address randomisation that it does not get along with."""
    program = folder / "gru_race"
    _compile("gru_race.cpp", program, "-O1", "-g", "-fsanitize=thread")
    return subprocess.run(["setarch", "-R", str(program)], capture_output=True, text=True, timeout=120)


class Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in (
            "rows", "steps", "packed", "batch_first", "hidden_size", "directions", "wide", "multiprocessors",
            "shared_bytes", "config", "at_once",
        )),
        ("frames", ctypes.c_int64),
    ]  # fmt: skip


@dataclass
class Plan:
    """kernels/rnn/gru_plan.h: GruPlan, and the GruConfig that it names."""

    config: int
    persistent: int
    at_once: int
    units: int
    ctas: int
    groups: int
    group_rows: int
    blocks: int
    in_shared: int
    streamed: int
    shared_bytes: int
    m_groups: int
    tiles: int
    in_registers: int
    ahead: int
    ring: int


def plan(library, forward, hidden_size, rows, directions=2, wide=False, device=SM_90, config=-1) -> Plan:
    shape = Shape(rows, 1, 0, 0, hidden_size, directions, wide, *device, config, directions, frames=rows)
    values = (ctypes.c_int32 * 16)()
    library.plan(int(forward), ctypes.byref(shape), values)
    return Plan(*values)


def _pointers(*tensors: Tensor | None):
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


class HostGRU:
    """One layer, as csrc/ops/gru_cuda.cpp runs it: forward, then backward with the deferred matrix products.

    lengths: [N] of the caller's rows; packed: x is the data of a PackedSequence, its rows sorted already.
    """

    def __init__(
        self, library, x, weights, h0, lengths, *, packed, batch_first, device, config=-1, at_once=None
    ):
        self.library, self.x, self.weights, self.h0 = library, x, weights, h0
        directions = len(weights)
        size = weights[0][1].shape[1]
        rows = len(lengths)
        steps = int(max(lengths)) if packed else x.shape[1 if batch_first else 0]
        frames = x.numel() // x.shape[-1]
        self.shape = Shape(
            rows, steps, packed, batch_first, size, directions, x.dtype == torch.float32, *device, config,
            at_once or directions, frames=frames,
        )  # fmt: skip
        self.lengths = (ctypes.c_int32 * rows)(*lengths)
        self.valid = torch.ones(frames, dtype=torch.bool)
        if not packed:
            grid = torch.arange(steps) < torch.tensor(lengths)[:, None]
            self.valid = (grid if batch_first else grid.t()).flatten()

    def new(self, *sizes, zeros=False):
        """Memory of the device: what nobody writes is NaN."""
        return self.x.new_full(sizes, 0.0 if zeros else float("nan"))

    def of_directions(self, index):
        values = [w[index] for w in self.weights]
        return [*values, *[None] * (2 - len(values))]

    def forward(self):
        s = self.shape
        weight_ih = torch.cat([w[0] for w in self.weights])
        gates_x = self.x.flatten(0, -2) @ weight_ih.t()
        padded = not bool(self.valid.all())
        self.output = self.new(s.frames, s.directions * s.hidden_size, zeros=padded)
        self.reserve = self.new(s.directions, s.frames, 4 * s.hidden_size)
        h_n = self.new(s.directions, s.rows, s.hidden_size)
        self.library.gru_forward(
            ctypes.byref(s), self.lengths,
            _pointers(gates_x, *self.of_directions(1), *self.of_directions(2), *self.of_directions(3), self.h0,
                      self.output, h_n, self.reserve),
        )  # fmt: skip
        return self.output.reshape(*self.x.shape[:-1], -1), h_n

    def backward(self, grad_output, grad_h_n):
        """Gradients of x, h0 and, with the directions in front, weight_ih, weight_hh, bias_ih and bias_hh."""
        s = self.shape
        size, directions = s.hidden_size, s.directions
        padded = not bool(self.valid.all())
        transposed = [w if w is None else w.t().contiguous() for w in self.of_directions(1)]
        grad_h0 = self.new(directions, s.rows, size)
        gates_x = self.new(s.frames, directions, 3 * size, zeros=padded)
        gates_h = self.new(directions, s.frames, 3 * size, zeros=padded)
        before = self.new(directions, s.frames, size, zeros=padded)
        self.library.gru_backward(
            ctypes.byref(s), self.lengths,
            _pointers(*transposed, self.h0, self.output, self.reserve, grad_output.contiguous(),
                      grad_h_n.contiguous(), grad_h0, gates_x, gates_h, before),
        )  # fmt: skip
        x = torch.where(self.valid[:, None], self.x.flatten(0, -2), 0)
        weight_ih = torch.cat([w[0] for w in self.weights])
        flat = gates_x.flatten(1)
        return (
            (flat @ weight_ih).reshape(self.x.shape),
            grad_h0,
            (flat.t() @ x).reshape(directions, 3 * size, -1),
            gates_h.transpose(1, 2) @ before,
            flat.sum(0).reshape(directions, -1),
            gates_h.sum(1),
        )
