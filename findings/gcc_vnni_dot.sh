#!/usr/bin/env bash
# GCC 12.2.0 (Debian 12's g++-12) with -O3 and AVX-512 VNNI: a dot product of bytes with an offset.
#
# Guess: activations stored as bytes that are 128 more than their value may be met with int8 weights by a plain loop,
# total += (q - 128) * w, which the compiler vectorises or not; the sum is the same either way.
# Found: with -mavx512vnni it is wrong without a warning. q - 128 is computed in eight bits and taken for unsigned by the
# instruction that multiplies unsigned by signed bytes, so that each q below 128 counts 256 too much in the part of the
# loop that is vectorised: of 37 bytes that are 1 the sum is 3493 in place of -4699, and of 64 it is right or wrong by the
# vectors' width. Without VNNI, or at -O2, it is right.
# asrkern's kernels finish such rows with the vectors' own instructions (kernels/linear/cpu/linear_dot.h); its int8 results
# are compared bit for bit in every instruction set (tests/ops/test_int8.py).
#
# Needs Debian's g++-12 and a CPU with AVX-512 VNNI. Output seen:
#   -O3: -4699 -8128
#   -O2 -march=icelake-server: -4699 -8128
#   -O3 -march=icelake-server -mno-avx512vnni: -4699 -8128
#   -O3 -march=icelake-server: 3493 8256
#   -O3 -march=icelake-server -mprefer-vector-width=512: 3493 -8128
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compiler=$(command -v g++-12 || { apt-get -qq update && apt-get -qq install -y g++-12 >&2 && command -v g++-12; })
[ "$("$compiler" -dumpfullversion)" = 12.2.0 ]
cat >"$work/dot.cpp" <<'C'
#include <cstdint>
#include <cstdio>
#include <cstring>

__attribute__((noinline)) uint32_t dot(const uint32_t* bytes, const int8_t* w, int64_t begin, int64_t end) {
  uint32_t total = 0;
  for (int64_t k = begin; k < end; ++k) {
    uint8_t q;
    std::memcpy(&q, reinterpret_cast<const char*>(bytes) + k, 1);
    total += uint32_t((int32_t(q) - 128) * w[k]);
  }
  return total;
}

int main() {
  uint32_t bytes[16];
  int8_t w[64];
  std::memset(bytes, 1, sizeof bytes);
  std::memset(w, 1, sizeof w);
  std::printf("%d %d\n", int32_t(dot(bytes, w, 0, 37)), int32_t(dot(bytes, w, 0, 64)));
}
C
for flags in "-O3" "-O2 -march=icelake-server" "-O3 -march=icelake-server -mno-avx512vnni" "-O3 -march=icelake-server" \
  "-O3 -march=icelake-server -mprefer-vector-width=512"; do
  # shellcheck disable=SC2086
  "$compiler" $flags "$work/dot.cpp" -o "$work/dot"
  echo "$flags: $("$work/dot")"
done | tee "$work/seen"
diff - "$work/seen" <<'P'
-O3: -4699 -8128
-O2 -march=icelake-server: -4699 -8128
-O3 -march=icelake-server -mno-avx512vnni: -4699 -8128
-O3 -march=icelake-server: 3493 8256
-O3 -march=icelake-server -mprefer-vector-width=512: 3493 -8128
P
