#!/usr/bin/env bash
# torch 2.13.0: what a TorchFunctionMode sees.
#
# Guess: a function mode sees the functions that take or make tensors; one that raises at some operation ends the block,
# and torch.no_grad() around or inside it puts gradients back on.
# Found: it sees torch._C._set_grad_enabled, too, by which no_grad() begins and ends. A mode that raises from then on
# raises there as well, and gradients stay off in the whole process, without a word.
# asrkern's outlines of models let it pass (asrkern/models/weights.py; tests/models/test_weights.py).
#
# Output seen:
#   seen: _set_grad_enabled, zeros, _set_grad_enabled
#   gradients on afterwards: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/mode.py" <<'P'
import torch
from torch.overrides import TorchFunctionMode


class GivesUp(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.__name__)
        if len(self.seen) > 1:
            raise ValueError("enough")
        return func(*args, **(kwargs or {}))


mode = GivesUp()
try:
    with mode, torch.no_grad():
        torch.zeros(3)
except ValueError:
    print("seen:", ", ".join(mode.seen))
print("gradients on afterwards:", torch.is_grad_enabled())
P
"$work/venv/bin/python" "$work/mode.py" | tee "$work/seen"
diff - "$work/seen" <<'P'
seen: _set_grad_enabled, zeros, _set_grad_enabled
gradients on afterwards: False
P
