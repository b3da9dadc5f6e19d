#!/usr/bin/env bash
# torch 2.13.0 with onnxscript 0.7.2: the number of frames of an exported GRU.
#
# Guess: a dimension that dynamic_shapes names is dynamic in the file, or torch.onnx.export(dynamo=True) says why not.
# Found: so it is with a GRU (or LSTM) of one layer and one direction. Of several layers or two directions the number of
# frames is a constant in the file, without a word. The older exporter (dynamo=False) keeps it dynamic.
# asrkern.onnx's translations keep it dynamic, too (docs/torch_features.md; tests/test_onnx.py).
#
# Output seen:
#   dynamo=True {}: ['rows', 'frames', 3]
#   dynamo=True {'num_layers': 2}: ['rows', 9, 3]
#   dynamo=True {'bidirectional': True}: ['rows', 9, 3]
#   dynamo=False {'num_layers': 2}: ['rows', 'frames', 3]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 numpy 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/frames.py" <<'P'
import sys
import warnings

import onnx
import torch
from torch.export import Dim

warnings.simplefilter("ignore")
axes = {
    True: {"dynamic_shapes": ({0: Dim("rows"), 1: Dim("frames")},)},
    False: {"dynamic_axes": {"x": {0: "rows", 1: "frames"}}},
}
for dynamo, layers in ((True, {}), (True, {"num_layers": 2}), (True, {"bidirectional": True}), (False, {"num_layers": 2})):
    gru, x = torch.nn.GRU(3, 4, batch_first=True, **layers).eval(), torch.randn(2, 9, 3)
    torch.onnx.export(gru, (x,), sys.argv[1], dynamo=dynamo, input_names=["x"], verbose=False, **axes[dynamo])
    shape = onnx.load(sys.argv[1]).graph.input[0].type.tensor_type.shape.dim
    print(f"{dynamo=} {layers}: {[d.dim_param or d.dim_value for d in shape]}")
P
"$work/venv/bin/python" "$work/frames.py" "$work/gru.onnx" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
dynamo=True {}: ['rows', 'frames', 3]
dynamo=True {'num_layers': 2}: ['rows', 9, 3]
dynamo=True {'bidirectional': True}: ['rows', 9, 3]
dynamo=False {'num_layers': 2}: ['rows', 'frames', 3]
P
