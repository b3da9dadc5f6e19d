#!/usr/bin/env bash
# torchaudio 2.11.1: its CTC beam search where flashlight-text is not installed.
#
# Guess: `from torchaudio.models.decoder import ctc_decoder` raises ImportError, as a missing package does, so that
# pytest.importorskip("torchaudio.models.decoder") skips and `except ImportError` falls back.
# Found: importing the module is fine, the name raises RuntimeError: both let it through.
# asrkern's tests of torchaudio's interface catch it by its own kind (tests/conftest.py).
#
# Output seen:
#   the module: imported
#   the name: RuntimeError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy 2>"$work/log" || { cat "$work/log"; exit 1; }
"$work/venv/bin/pip" install -q torchaudio==2.11.1 2>"$work/log" || { cat "$work/log"; exit 1; }
# Its compiled libraries link CUDA's, which a torch for the CPU has not; the decoder is flashlight-text's.
rm -f "$work"/venv/lib/python3*/site-packages/torchaudio/lib/*.so
cat >"$work/decoder.py" <<'P'
import torchaudio.models.decoder

print("the module: imported")
try:
    from torchaudio.models.decoder import ctc_decoder
    print("the name:", ctc_decoder)
except Exception as error:
    print("the name:", type(error).__name__)
P
"$work/venv/bin/python" "$work/decoder.py" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
the module: imported
the name: RuntimeError
P
