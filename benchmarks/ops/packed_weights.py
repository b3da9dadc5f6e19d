"""What a layer's check of its kept weights costs: the layer, and a frozen one, beside the operation over packed weights.

    python benchmarks/ops/packed_weights.py

One bidirectional layer, N=1, on the CPU; outputs are compared bit for bit first.
"""

from __future__ import annotations

import copy
import statistics
import sys
from pathlib import Path

import torch

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import asrkern.nn
from asrkern import ops
from asrkern.ops.gru import PackedWeights
from benchmarks._report import markdown_table
from benchmarks._timing import interleaved, machine

SHAPES = [(hidden_size, frames) for hidden_size in (512, 1024, 2560) for frames in (10, 100, 500)]


def measure(hidden_size: int, frames: int) -> dict[str, str]:
    torch.manual_seed(0)
    layer = asrkern.nn.GRU(hidden_size, hidden_size, bidirectional=True).eval()
    input = torch.randn(frames, 1, hidden_size)
    directions = []
    for suffix in ("", "_reverse"):
        w_ih, w_hh, b_ih, b_hh = (
            getattr(layer, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        directions.append(PackedWeights(w_ih, None, ops.pack_gru_weight(w_hh), None, b_ih, b_hh))

    def checksums() -> None:
        for suffix in ("", "_reverse"):
            torch.ops.asrkern.checksum(getattr(layer, f"weight_hh_l0{suffix}"))

    frozen = asrkern.nn.freeze(copy.deepcopy(layer))
    calls = {
        "layer": lambda: layer(input)[0],
        "frozen": lambda: frozen(input)[0],
        "packed beforehand": lambda: ops.gru_prepacked(input, *directions)[0],
        "checksum": checksums,
    }
    with torch.inference_mode():
        expected = calls["packed beforehand"]()
        if not all(torch.equal(calls[name](), expected) for name in ("layer", "frozen")):
            raise SystemExit(f"H={hidden_size} T={frames}: the outputs differ")
        times = interleaved(calls, rounds=15, seconds=3)
    layer_s, frozen_s, packed_s, checksum_s = (statistics.median(times[name]) for name in calls)

    def against_packed(name: str) -> str:
        ratio = statistics.median(a / b for a, b in zip(times[name], times["packed beforehand"]))
        return f"{100 * (ratio - 1):+.1f} %"

    return {
        "H": f"{hidden_size}",
        "T": f"{frames}",
        "layer ms": f"{1e3 * layer_s:.3f}",
        "frozen ms": f"{1e3 * frozen_s:.3f}",
        "packed beforehand ms": f"{1e3 * packed_s:.3f}",
        "layer against packed": against_packed("layer"),
        "frozen against packed": against_packed("frozen"),
        "checksum ms": f"{1e3 * checksum_s:.3f}",
        "of the layer": f"{100 * checksum_s / layer_s:.2f} %",
    }


def main() -> None:
    print(", ".join(f"{key} {value}" for key, value in machine(torch.device("cpu")).items() if value))
    print(markdown_table([measure(*shape) for shape in SHAPES]))


if __name__ == "__main__":
    main()
