#!/usr/bin/env bash
# torch 2.13.0's libtorch_cpu.so (the build for the CPU): where an extension's std::exception_ptr comes from.
#
# Guess: an extension that g++ links against libtorch_cpu.so takes what belongs to C++'s library from libstdc++, with a
# version that tells which libstdc++ it needs.
# Found: libtorch_cpu.so exports _M_addref and _M_release of std::exception_ptr, without versions, and g++ puts -lstdc++
# last: the extension asks for them without a version. Nothing in it says any more that it needs CXXABI_1.3.13, which is
# newer than manylinux_2_28 allows, so that tools that read versions find it portable.
# asrkern links libstdc++ before torch (CMakeLists.txt, torch_stable) and brings its own of what is newer than
# manylinux_2_28 (tools/wheels/old_libraries.py; tests/test_wheels.py).
#
# Output seen (g++ 12.2):
#   as g++ links: 2 symbols of std::exception_ptr, 0 with a version
#   -lstdc++ before torch: 2 symbols of std::exception_ptr, 2 with a version
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-deps torch==2.13.0 2>"$work/log" || { cat "$work/log"; exit 1; }
torch=$(echo "$work"/venv/lib/python3*/site-packages/torch/lib/libtorch_cpu.so)
cat >"$work/kept.cpp" <<'C'
#include <exception>
std::exception_ptr kept;
void keep(const std::exception_ptr& other) { kept = other; }
C
count() {
  g++ -shared -fPIC -O1 -o "$work/kept.so" "${@:2}"
  objdump -T "$work/kept.so" | grep -E 'exception_ptr(9|10)_M_(addref|release)' >"$work/symbols"
  echo "$1: $(grep -c . "$work/symbols") symbols of std::exception_ptr, $(grep -c CXXABI "$work/symbols" || true) with a version"
}
{
  count "as g++ links" "$work/kept.cpp" "$torch"
  count "-lstdc++ before torch" "$work/kept.cpp" -lstdc++ "$torch"
} | tee "$work/seen"
diff - "$work/seen" <<'P'
as g++ links: 2 symbols of std::exception_ptr, 0 with a version
-lstdc++ before torch: 2 symbols of std::exception_ptr, 2 with a version
P
