#!/usr/bin/env bash
# torch 2.13.0: torch.jit.script and DeepSpeech's own activation, Hardtanh(0, 20).
#
# Guess: nn.Hardtanh(0, 20), which runs in eager mode, in a trace and in torch.export, can be scripted, since its bounds
# are converted where a float is wanted.
# Found: it cannot. Bounds given as integers stay integers on the module, and hardtanh's schema takes floats only. The
# first try says so; a second try in the same process, whatever the model, says "Can't redefine method: forward" of
# Hardtanh instead, which names neither bounds nor types. With 0.0 and 20.0 it works, in a fresh process.
# Models of the DeepSpeech line write integers. asrkern.nn.revert's test scripts a model with floats.
#
# Output seen:
#   ints: Expected a value of type 'float' for argument 'min_val' but instead found type 'int'.
#   ints again: Can't redefine method: forward on class: __torch__.torch.nn.modules.activation.Hardtanh
#   floats: scripted
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy
cat >"$work/script.py" <<'P'
import re
import sys
import warnings

import torch

warnings.simplefilter("ignore")


def attempt(*bounds):
    try:
        torch.jit.script(torch.nn.Hardtanh(*bounds))
        return "scripted"
    except RuntimeError as error:
        return re.search(r"Expected a value of type .*|Can't redefine method: forward on class: [\w.]+|$", str(error))[0]


if sys.argv[1] == "ints":
    print("ints:", attempt(0, 20))
    print("ints again:", attempt(0, 20))
else:
    print("floats:", attempt(0.0, 20.0))
P
for kind in ints floats; do "$work/venv/bin/python" "$work/script.py" $kind; done | tee "$work/seen"
diff - "$work/seen" <<'P'
ints: Expected a value of type 'float' for argument 'min_val' but instead found type 'int'.
ints again: Can't redefine method: forward on class: __torch__.torch.nn.modules.activation.Hardtanh
floats: scripted
P
