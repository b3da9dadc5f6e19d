#!/usr/bin/env bash
# torch 2.11.0 and 2.13.0, headers of the stable interface with TORCH_TARGET_VERSION of 2.10: what they define.
#
# Guess: an extension for 2.10 compiles with the headers of any later torch, or with none: TORCH_TARGET_VERSION hides what
# came later.
# Found: not this macro. 2.13's headers define STABLE_TORCH_ERROR_CODE_CHECK for the target 2.10, too, which those
# of 2.11 do not have (there it is TORCH_ERROR_CODE_CHECK): code that was compiled for 2.10 with 2.13 does not
# compile with 2.11. Its binaries run on both.
# asrkern defines the name where it is missing (csrc/ops/check.h), and is built with 2.11's headers, too.
#
# Output seen (g++ 12.2):
#   torch 2.11.0, target 2.10: no STABLE_TORCH_ERROR_CODE_CHECK
#   torch 2.13.0, target 2.10: STABLE_TORCH_ERROR_CODE_CHECK is defined
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for version in 2.11.0 2.13.0; do
  "$work/venv/bin/pip" install -q --no-deps --target "$work/$version" "torch==$version" 2>"$work/log" \
    || { cat "$work/log"; exit 1; }
  defined=$(printf '%s\n' '#include <torch/csrc/stable/library.h>' '#include <torch/csrc/stable/ops.h>' \
    '#include <torch/csrc/stable/tensor.h>' '#ifdef STABLE_TORCH_ERROR_CODE_CHECK' 'found' '#else' 'missing' '#endif' \
    | g++ -x c++ -std=c++20 -E -P -DTORCH_TARGET_VERSION=0x020a000000000000 -isystem "$work/$version/torch/include" - | tail -1)
  case $defined in
    found) echo "torch $version, target 2.10: STABLE_TORCH_ERROR_CODE_CHECK is defined" ;;
    *) echo "torch $version, target 2.10: no STABLE_TORCH_ERROR_CODE_CHECK" ;;
  esac
done | tee "$work/seen"
diff - "$work/seen" <<'P'
torch 2.11.0, target 2.10: no STABLE_TORCH_ERROR_CODE_CHECK
torch 2.13.0, target 2.10: STABLE_TORCH_ERROR_CODE_CHECK is defined
P
