#!/usr/bin/env bash
# torch 2.13.0: what making a layer on the meta device imports.
#
# Guess: a layer on the meta device costs nothing: no memory, no values, so that a model's shapes can be compared with a
# checkpoint's before it is made.
# Found: no memory, but nn.Embedding (and whatever else fills its weights by normal_) imports TorchDynamo, hundreds of
# modules and seconds, at the first of its kind in a process; nn.Linear (uniform_) imports nothing.
# asrkern's readers of checkpoints sketch models on the meta device with the initialisation left out
# (asrkern/models/weights.py, outline); tests/models/test_weights.py.
#
# Output seen:
#   Linear: TorchDynamo imported: False
#   Embedding: TorchDynamo imported: True, over 500 modules: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/meta.py" <<'P'
import sys

import torch

torch.nn.Linear(4, 4, device="meta")
print("Linear: TorchDynamo imported:", "torch._dynamo" in sys.modules)
before = len(sys.modules)
torch.nn.Embedding(4, 4, device="meta")
print(
    "Embedding: TorchDynamo imported:", "torch._dynamo" in sys.modules,
    end=f", over 500 modules: {len(sys.modules) - before > 500}\n",
)
P
"$work/venv/bin/python" "$work/meta.py" | tee "$work/seen"
diff - "$work/seen" <<'P'
Linear: TorchDynamo imported: False
Embedding: TorchDynamo imported: True, over 500 modules: True
P
