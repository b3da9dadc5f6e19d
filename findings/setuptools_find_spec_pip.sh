#!/usr/bin/env bash
# setuptools 84.2.1 under Python 3.11, and torch 2.13.0: torch.compile after a look for pip.
#
# Guess: importlib.util.find_spec("pip") says whether pip is there, and changes nothing.
# Found: setuptools' finder takes the question for pip's own start and gives up its distutils for the rest of the process.
# The next import of setuptools fails, and with it torch.utils.cpp_extension and torch.compile's inductor. Python 3.12 has
# no distutils, and no such rule.
# asrkern's tests of pip look for it in another process (tests/test_install.py); asrkern's own code does not look for it.
#
# Output seen (Python 3.11.7):
#   cpp_extension: imported
#   after find_spec("pip"): AssertionError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || { echo "needs a Python below 3.12"; exit 1; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy setuptools==84.2.1 2>"$work/log" || { cat "$work/log"; exit 1; }
python="$work/venv/bin/python"
{
  "$python" -c 'import torch.utils.cpp_extension; print("cpp_extension: imported")'
  "$python" -c '
import importlib.util

importlib.util.find_spec("pip")
try:
    import torch.utils.cpp_extension
    print("after find_spec(\"pip\"): imported")
except AssertionError as error:
    print("after find_spec(\"pip\"):", type(error).__name__)
'
} | tee "$work/seen"
diff - "$work/seen" <<'P'
cpp_extension: imported
after find_spec("pip"): AssertionError
P
