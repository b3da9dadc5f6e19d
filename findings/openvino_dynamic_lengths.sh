#!/usr/bin/env bash
# OpenVINO 2026.4.1, a file by onnx 1.23.2: sequence_lens of GRU where the shapes are dynamic.
#
# Guess: a bidirectional GRU starts its reverse direction at each row's own length, as ONNX says, in whatever shapes.
# Found: with dynamic shapes the lengths are not looked at, without a word: output beyond them is not 0, and the reverse
# direction has read the padding. With static shapes, of the same file, they count.
# asrkern's exported models need static shapes in OpenVINO (docs/torch_features.md; tests/test_onnx.py).
#
# Output seen:
#   dynamic: padding read
#   static: lengths count
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnx==1.23.2 openvino==2026.4.1 numpy 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/lengths.py" <<'P'
import sys

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper

random = np.random.default_rng(0)
units, features = 4, 3
weights = [
    helper.make_tensor(name, TensorProto.FLOAT, shape, random.standard_normal(shape).astype(np.float32).ravel())
    for name, shape in (("W", (2, 3 * units, features)), ("R", (2, 3 * units, units)))
]
graph = helper.make_graph(
    [helper.make_node("GRU", ["x", "W", "R", "", "lengths"], ["y"], hidden_size=units, direction="bidirectional")],
    "gru",
    [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["frames", "rows", features]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["rows"]),
    ],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["frames", 2, "rows", units])],
    weights,
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), sys.argv[1])

x = random.standard_normal((7, 2, features)).astype(np.float32)
lengths = np.array([7, 3], np.int32)
other = x.copy()
other[3:, 1] = 5  # padding of the second row
core = openvino.Core()
for kind in ("dynamic", "static"):
    model = core.read_model(sys.argv[1])
    if kind == "static":
        model.reshape({"x": x.shape, "lengths": lengths.shape})
    run = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    a, b = (run({"x": value, "lengths": lengths})[0][:3].copy() for value in (x, other))
    print(f"{kind}: {'lengths count' if np.array_equal(a, b) else 'padding read'}")
P
"$work/venv/bin/python" "$work/lengths.py" "$work/gru.onnx" | tee "$work/seen"
diff - "$work/seen" <<'P'
dynamic: padding read
static: lengths count
P
