#!/usr/bin/env bash
# torch 2.13.0: an infinite argument of a custom operation in a package of AOTInductor.
#
# Guess: a float argument of an operation may be infinite in a package that torch makes and torch loads.
# Found: the package holds it as the string "Infinity", and the call fails with an error of the JSON reader that names
# neither the operation nor the argument.
# asrkern's clamps without a bound are the largest number in compiled models (asrkern/ops/_autograd.py; tests/nn/test_compile.py).
#
# Output seen:
#   1e+30: [1.0, 1.0, 1.0]
#   inf: [json.exception.type_error.302] type must be number, but is string
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy setuptools 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/infinite.py" <<'P'
import sys

import torch

torch.library.define("probe::clip", "(Tensor x, float high) -> Tensor")
torch.library.impl("probe::clip", "cpu", lambda x, high: x.clamp(max=high))
torch.library.register_fake("probe::clip", lambda x, high: torch.empty_like(x))


class Clip(torch.nn.Module):
    def __init__(self, high):
        super().__init__()
        self.high = high

    def forward(self, x):
        return torch.ops.probe.clip(x, self.high)


for number, high in enumerate((1e30, float("inf"))):
    program = torch.export.export(Clip(high), (torch.randn(3),))
    path = torch._inductor.aoti_compile_and_package(program, package_path=f"{sys.argv[1]}/{number}.pt2")
    try:
        print(f"{high}: {torch._inductor.aoti_load_package(path)(torch.ones(3)).tolist()}")
    except RuntimeError as error:
        print(f"{high}: {error}")
P
"$work/venv/bin/python" "$work/infinite.py" "$work" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
1e+30: [1.0, 1.0, 1.0]
inf: [json.exception.type_error.302] type must be number, but is string
P
