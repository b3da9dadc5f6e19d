#!/usr/bin/env bash
# pyctcdecode 0.5.0: a label that is there twice, and two names of the blank.
#
# Guess: one rule for labels that are the same in the end. build_ctcdecoder refuses a label that is there twice, so it
# also refuses Hugging Face vocabularies that have both <pad> and [PAD], since each of them becomes the blank.
# Found: duplicates are looked for before names are made uniform. <pad> twice is refused; <pad> and [PAD] are taken, the
# vocabulary then has '' twice, and either index separates repeated letters.
# asrkern.decoder.compat.build_ctcdecoder takes both, too, and adds their probabilities (tests/decoder/test_compat.py).
#
# Output seen:
#   vocabulary: {0: '', 1: 'a', 2: 'b', 3: ' ', 4: ''}
#   a <pad> a: aa; a [PAD] a: aa
#   <pad> twice: ValueError Alphabet contains duplicate entries, this is not allowed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pyctcdecode==0.5.0 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/blanks.py" <<'P'
import logging

import numpy as np
from pyctcdecode import build_ctcdecoder

logging.disable(logging.CRITICAL)
decoder = build_ctcdecoder(["<pad>", "a", "b", " ", "[PAD]"])
print("vocabulary:", decoder._idx2vocab)


def decode(*indices):
    logits = np.full((len(indices), 5), -9.0, np.float32)
    logits[np.arange(len(indices)), indices] = 0
    return decoder.decode(logits)


print(f"a <pad> a: {decode(1, 0, 1)}; a [PAD] a: {decode(1, 4, 1)}")
try:
    build_ctcdecoder(["<pad>", "a", "<pad>", " "])
except Exception as error:
    print("<pad> twice:", type(error).__name__, error)
P
"$work/venv/bin/python" "$work/blanks.py" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
vocabulary: {0: '', 1: 'a', 2: 'b', 3: ' ', 4: ''}
a <pad> a: aa; a [PAD] a: aa
<pad> twice: ValueError Alphabet contains duplicate entries, this is not allowed.
P
