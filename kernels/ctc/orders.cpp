#include "kernels/ctc/orders.h"

#include <algorithm>
#include <limits>

namespace asrkern {

void sort_candidates(CtcCandidate* candidates, int32_t count) {
  std::sort(candidates, candidates + count, [](const CtcCandidate& a, const CtcCandidate& b) {
    return a.token != b.token ? a.token < b.token : a.choice < b.choice;
  });
}

void sort_by_worth(int32_t* tokens, int32_t count, const float* worth) {
  std::sort(tokens, tokens + count,
            [worth](int32_t a, int32_t b) { return worth[a] > worth[b] || (worth[a] == worth[b] && a < b); });
}

float nth_largest(const float* values, int32_t count, int32_t n, float* scratch) {
  // Keeps a few times n values. Whenever they are full, the n largest stay, and only larger ones are taken from there
  // on: of a large vocabulary most blocks have none.
  constexpr int32_t kBlock = 16;
  const int32_t room = std::min(count, std::max(4 * kBlock, n > count / 4 ? count : 4 * n));
  int32_t kept = 0;
  float bar = -std::numeric_limits<float>::infinity();
  const auto cut = [&] {
    std::nth_element(scratch, scratch + n - 1, scratch + kept, [](float a, float b) { return a > b; });
    bar = scratch[n - 1];
    kept = n;
  };
  for (int32_t begin = 0; begin < count; begin += kBlock) {
    const int32_t end = std::min(count, begin + kBlock);
    int32_t larger = 0;
    for (int32_t i = begin; i < end; ++i) larger |= values[i] > bar;
    if (!larger) continue;
    for (int32_t i = begin; i < end; ++i) {
      if (!(values[i] > bar)) continue;
      if (kept == room) cut();
      if (values[i] > bar) scratch[kept++] = values[i];
    }
  }
  // Of values that are no numbers or -inf none is kept: whatever calls this, nothing beyond scratch is read.
  if (kept >= n) cut();
  return bar;
}

}  // namespace asrkern
