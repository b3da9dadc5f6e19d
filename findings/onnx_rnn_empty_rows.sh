#!/usr/bin/env bash
# ONNX Runtime 1.32.0 and OpenVINO 2026.4.1, a file by onnx 1.23.2: the last state of a row without frames.
#
# Guess: a GRU whose sequence_lens is 0 for a row takes no step there, so that its last state (Y_h) is initial_h.
# Found: it is 0 in both, whatever initial_h says. The row beside it, of 3 frames, is computed from initial_h.
# Who feeds states from call to call loses that of a row which has no frames for once. asrkern.ops.gru gives it back, and
# asrkern.onnx's translations put it back with a Where (docs/torch_features.md; tests/test_onnx.py).
#
# Output seen:
#   ONNX Runtime: row of 0 frames [0. 0.], row of 3 frames from initial_h True
#   OpenVINO: row of 0 frames [0. 0.], row of 3 frames from initial_h True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 numpy 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/rows.py" <<'P'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

random = np.random.default_rng(0)
units, features, frames = 2, 3, 3
weights = [
    helper.make_tensor(name, TensorProto.FLOAT, shape, random.standard_normal(shape).astype(np.float32).ravel())
    for name, shape in (("W", (1, 3 * units, features)), ("R", (1, 3 * units, units)))
]
graph = helper.make_graph(
    [helper.make_node("GRU", ["x", "W", "R", "", "lengths", "initial_h"], ["", "last"], hidden_size=units)],
    "gru",
    [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [frames, 2, features]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, [2]),
        helper.make_tensor_value_info("initial_h", TensorProto.FLOAT, [1, 2, units]),
    ],
    [helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, 2, units])],
    weights,
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), sys.argv[1])

given = {
    "x": random.standard_normal((frames, 2, features)).astype(np.float32),
    "lengths": np.array([0, 3], np.int32),
    "initial_h": np.ones((1, 2, units), np.float32),
}
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
core = openvino.Core()
compiled = core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
calls = {
    "ONNX Runtime": lambda values: session.run(None, values)[0],
    "OpenVINO": lambda values: compiled(values)[0].copy(),
}
for name, call in calls.items():
    [rows] = call(given)
    [without] = call({**given, "initial_h": np.zeros((1, 2, units), np.float32)})
    counts = not np.allclose(rows[1], without[1])
    print(f"{name}: row of 0 frames {rows[0]}, row of 3 frames from initial_h {counts}")
P
"$work/venv/bin/python" "$work/rows.py" "$work/gru.onnx" | tee "$work/seen"
diff - "$work/seen" <<'P'
ONNX Runtime: row of 0 frames [0. 0.], row of 3 frames from initial_h True
OpenVINO: row of 0 frames [0. 0.], row of 3 frames from initial_h True
P
