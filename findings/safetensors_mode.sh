#!/usr/bin/env bash
# safetensors 0.8.0: who may read what save_file writes.
#
# Guess: save_file writes as open(path, "wb") does: a new file has the mode that the umask leaves, one that is there
# keeps its mode, and a link goes on pointing to what is written.
# Found: every file is a new one that only its owner may read (0600), whatever the umask and whatever was there before;
# a link is replaced by a file, and what it pointed to stays old. A checkpoint in a shared folder that the group has
# read so far cannot be read by it after the next save.
# asrkern gives what it writes the mode of any new file, and replaces what links point to (asrkern/_atomic_write.py;
# tests/test_atomic_write.py, test_a_new_file_has_the_mode_of_any_new_file).
#
# Output seen:
#   umask 022: open: 0o644, save_file: 0o600
#   0o664 before: 0o600 after, the same file: False
#   through a link: still a link: False, the file it pointed to is new: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/mode.py" <<'P'
import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

os.umask(0o022)
os.chdir(sys.argv[1])
weights = {"w": np.ones(3, np.float32)}
opened, new, shared, target, link = map(Path, ("opened", "new", "shared", "target", "link"))


def mode(path):
    return oct(path.stat().st_mode & 0o777)


opened.write_bytes(b"before")
save_file(weights, new)
print(f"umask 022: open: {mode(opened)}, save_file: {mode(new)}")
shared.write_bytes(b"before")
shared.chmod(0o664)
before, number = mode(shared), shared.stat().st_ino
save_file(weights, shared)
print(f"{before} before: {mode(shared)} after, the same file: {shared.stat().st_ino == number}")
target.write_bytes(b"before")
link.symlink_to(target)
save_file(weights, link)
is_new = target.read_bytes() != b"before"
print(f"through a link: still a link: {link.is_symlink()}, the file it pointed to is new: {is_new}")
P
"$work/venv/bin/python" "$work/mode.py" "$work" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
umask 022: open: 0o644, save_file: 0o600
0o664 before: 0o600 after, the same file: False
through a link: still a link: False, the file it pointed to is new: False
P
