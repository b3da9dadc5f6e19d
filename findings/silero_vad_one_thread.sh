#!/usr/bin/env bash
# silero-vad 6.2.3 beside torch 2.13.0: how many threads torch has after the import.
#
# Guess: a detector that runs on ONNX Runtime leaves torch's threads alone; at most its own session has one.
# Found: `import silero_vad` sets torch to one thread for the whole process, so that a recogniser of the same process
# computes with one core from then on.
# asrkern reads the network from silero-vad's file and never imports the package
# (asrkern/data/voice_activity.py; tests/data/test_segmentation.py).
#
# Output seen (on two cores):
#   before: more than one
#   after: one
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchaudio==2.11.0 silero-vad==6.2.3 onnxruntime numpy 2>"$work/log" \
  || { cat "$work/log"; exit 1; }
# Beside a torch for the CPU alone, torchaudio's libraries do not load; nothing here needs them.
rm -f "$work"/venv/lib/python3*/site-packages/torchaudio/lib/*.so
cat >"$work/threads.py" <<'P'
import torch

torch.set_num_threads(2)
say = lambda when: print(f"{when}: {'one' if torch.get_num_threads() == 1 else 'more than one'}")
say("before")
import silero_vad  # noqa: E402, F401

say("after")
P
"$work/venv/bin/python" "$work/threads.py" 2>"$work/log" | tee "$work/seen" || cat "$work/log"
diff - "$work/seen" <<'P'
before: more than one
after: one
P
