"""Compiles every Triton kernel for a GPU that need not be there, as the operations launch it at the sizes of DeepSpeech2.

    python tests/kernels/compile_triton.py 90 [--every-config]

Prints one JSON object a compiled kernel: what it needs, and which instructions it was given.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from asrkern.ops import _batch_norm_act_cuda as batch_norm
from asrkern.ops import _masked_conv2d_cuda as convolution
from asrkern.ops._masked_conv2d_cuda import Config
from benchmarks.shapes import BATCH_NORM_ACT, MASKED_CONV2D, BatchNormShape, ConvShape

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
FLOATS = (torch.float32, torch.bfloat16)
HARDTANH = (0.0, 20.0)


class Driver:
    """Says that there is a GPU of some capability."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def resources(cubin: bytes) -> tuple[int, int]:
    """(registers a thread, bytes of stack a thread) of one kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        printed = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", printed).groups()
    return int(registers), int(stack)


class Compiler:
    """Stands in for JITFunction.run: compiles, describes and does not launch."""

    def __init__(self) -> None:
        self.compile = JITFunction.run
        self.described = []

    def run(self, function, *args, grid, warmup, **options):
        kernel = self.compile(function, *args, grid=grid, warmup=True, **options)
        if not any(kernel is other for other in self.described):
            self.described.append(kernel)
            self.describe(function.__name__, args[0].dtype, kernel, options)

    def describe(self, name, dtype, kernel, options):
        ptx = kernel.asm["ptx"]
        registers, stack = resources(kernel.asm["cubin"])
        copies = re.findall(r"cp\.async\.c[ag]\.shared\.global.*?, (0x[0-9a-f]+|\d+)[,;]", ptx)
        print(json.dumps({
            "name": name, "dtype": str(dtype), "precision": options.get("PRECISION"),
            "warps": kernel.metadata.num_warps, "shared": kernel.metadata.shared,
            "registers": registers, "stack": stack,
            "tensor_core_instructions": len(re.findall(r"\b(?:wgmma\.mma_async|mma)\.sync", ptx)),
            "to_bfloat16": sorted(set(re.findall(r"\bcvt\.(\w+)(?:\.\w+)*\.bf16(?:x2)?\.f32", ptx))),
            "async_copy_bytes": sorted({int(size, 0) for size in copies}),
        }))  # fmt: skip


def compile_convolution(shape: ConvShape, dtype: torch.dtype, config: Config | None, training: bool) -> None:
    x = torch.empty(shape.batch, shape.in_channels, shape.bins, shape.frames, dtype=dtype)
    weight = torch.empty(shape.out_channels, shape.in_channels, *shape.kernel, dtype=dtype)
    channel, lengths = torch.empty(shape.out_channels), torch.empty(shape.batch, dtype=torch.int64)
    args = (lengths, None, shape.stride, shape.padding, *HARDTANH)
    convolution.run(x, weight, *[channel] * 3, *args, config=config)
    if training:
        convolution.run(x, weight, channel, None, None, *args, statistics="valid", config=config)


def compile_convolutions(every_config: bool) -> None:
    for shape, dtype, tf32 in itertools.product(MASKED_CONV2D, FLOATS, (True, False)):
        torch.backends.cudnn.allow_tf32 = tf32
        precision = convolution.product_precision(dtype)
        if precision == "half" and tf32:
            continue
        size = "few" if shape.batch == 1 else "many"
        if every_config:
            for config in convolution.CONFIGS[precision, size]:
                compile_convolution(shape, dtype, config, training=True)
        elif shape.in_channels > 1 or (size == "many" and precision != "ieee"):
            compile_convolution(shape, dtype, None, training=size == "many")


def compile_batch_norms() -> None:
    # One of each kind of layout, and sizes of 1, which Triton takes for constants.
    shapes = [
        *BATCH_NORM_ACT[1:3],
        BatchNormShape("NCT", (3, 1, 1), HARDTANH),
        BatchNormShape("NTC", (3, 1, 1), HARDTANH),
    ]
    for shape, dtype in [
        *itertools.product(shapes[:2], FLOATS),
        *((shape, torch.float32) for shape in shapes[2:]),
    ]:
        x = torch.empty(shape.size, dtype=dtype)
        channel = torch.empty(shape.size[shape.layout.index("C")])
        lengths = torch.empty(shape.size[shape.layout.index("N")], dtype=torch.int64)
        options = (lengths, shape.layout, True, False, 1e-5, *HARDTANH)
        batch_norm.forward(x, channel, channel, None, None, *options)
        batch_norm.backward(x, x, channel, channel, channel, channel, *options)


if __name__ == "__main__":
    driver.set_active(Driver(int(sys.argv[1])))
    compiler = Compiler()
    JITFunction.run = lambda *args, **options: compiler.run(*args, **options)
    compile_convolutions(every_config="--every-config" in sys.argv)
    compile_batch_norms()
