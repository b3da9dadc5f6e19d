#!/usr/bin/env bash
# torch 2.13.0: torch.save where no more can be written (here a limit on the size of files).
#
# Guess: OSError with the system's errno, as writing bytes gives, and the path.
# Found: RuntimeError "unexpected pos ... vs ...": no errno, no word of what the system said, no path. The legacy format
# says the system's words, without errno and path. Given a file that Python opened, it raises the same RuntimeError; the
# OSError is its context.
# asrkern asks the system once more and raises OSError with its errno, its words and the path
# (asrkern/_atomic_write.py, _refusal; tests/test_atomic_write.py, test_what_the_system_refuses_is_said_in_its_words).
#
# Output seen:
#   path: RuntimeError, errno None, "unexpected pos": True, system's words: False, path: False, context: RuntimeError
#   legacy: RuntimeError, errno None, "unexpected pos": False, system's words: True, path: False, context: NoneType
#   file: RuntimeError, errno None, "unexpected pos": True, system's words: False, path: False, context: OSError
#   bytes: OSError, errno EFBIG, "unexpected pos": False, system's words: True, path: False, context: NoneType
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/full.py" <<'P'
import errno
import os
import resource
import signal
import sys

import torch

path = sys.argv[1]
weights = {"w": torch.ones(300_000)}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def attempt(name, save):
    try:
        save()
    except Exception as error:
        words = str(error)
        number = errno.errorcode.get(getattr(error, "errno", None))
        kind, context = type(error).__name__, type(error.__context__).__name__
        print(f'{name}: {kind}, errno {number}, "unexpected pos": {"unexpected pos" in words}', end=", ")
        print(f"system's words: {os.strerror(errno.EFBIG) in words}, path: {path in words}, context: {context}")


attempt("path", lambda: torch.save(weights, path))
attempt("legacy", lambda: torch.save(weights, path, _use_new_zipfile_serialization=False))
attempt("file", lambda: torch.save(weights, open(path, "wb")))
attempt("bytes", lambda: open(path, "wb").write(bytes(1_200_000)))
P
"$work/venv/bin/python" "$work/full.py" "$work/model.pt" 2>"$work/log" | tee "$work/seen"
diff - "$work/seen" <<'P'
path: RuntimeError, errno None, "unexpected pos": True, system's words: False, path: False, context: RuntimeError
legacy: RuntimeError, errno None, "unexpected pos": False, system's words: True, path: False, context: NoneType
file: RuntimeError, errno None, "unexpected pos": True, system's words: False, path: False, context: OSError
bytes: OSError, errno EFBIG, "unexpected pos": False, system's words: True, path: False, context: NoneType
P
