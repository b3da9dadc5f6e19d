// Selection and order by floats, for the lengths that a beam search has.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/common/vector_copies.h"

namespace asrkern {

// The largest of value(0) … value(count − 1) and `least`. Part of its caller, so that it vectorises as that does.
template <class Value>
[[gnu::always_inline]] inline float largest(int32_t count, float least, const Value& value) {
  // In lanes, which vectorise: a single maximum would wait for itself.
  constexpr int32_t LANES = 16;
  float lanes[LANES];
  std::fill_n(lanes, LANES, least);
  int32_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int32_t lane = 0; lane < LANES; ++lane) {
      const float x = value(i + lane);
      lanes[lane] = x > lanes[lane] ? x : lanes[lane];
    }
  for (; i < count; ++i) lanes[0] = value(i) > lanes[0] ? value(i) : lanes[0];
  return *std::max_element(lanes, lanes + LANES);
}

// How many of [count] values reach a limit.
ASRKERN_VECTOR_COPIES inline int32_t count_from(const float* values, int32_t count, float limit) {
  int32_t reached = 0;
  for (int32_t i = 0; i < count; ++i) reached += values[i] >= limit;
  return reached;
}

// What the best of some values reach. ties: NO_TIES: they alone; else how many of those that equal the limit are among
// the best.
struct Cut {
  float limit;
  int32_t ties;
};
constexpr int32_t NO_TIES = -1;

// Between the n-th largest of [count] values and the next; more than n reach `low`. By bisection, so that values are
// only counted, which vectorises.
ASRKERN_VECTOR_COPIES inline Cut cut_behind(const float* values, int32_t count, int32_t n, float low) {
  float most = largest(count, low, [values](int32_t i) { return values[i]; });
  // The least that reaches `low`, so that few steps do.
  low = -largest(count, -most, [values, low](int32_t i) { return values[i] >= low ? -values[i] : -INFINITY; });
  // More than n reach `low`; once it has been looked at, fewer reach `most`.
  for (float middle = most;;) {
    int32_t reached = 0;
    for (int32_t i = 0; i < count; ++i) reached += values[i] >= middle;
    if (reached == n) return {middle, NO_TIES};
    (reached > n ? low : most) = middle;
    middle = low + 0.5f * (most - low);
    if (!(middle > low && middle < most)) break;
  }
  int32_t above = 0;
  for (int32_t i = 0; i < count; ++i) above += values[i] > low;
  return {low, n - above};
}

// Sorts tokens, which differ, by their worth, the most first; of equals the smallest.
template <class Worth>
void order_by_worth(int32_t* tokens, int32_t count, const Worth& worth) {
  constexpr int32_t FEW = 64;
  if (count > FEW) {
    std::sort(tokens, tokens + count, [&worth](int32_t a, int32_t b) {
      const float worth_a = worth(a), worth_b = worth(b);
      return worth_a > worth_b || (worth_a == worth_b && a < b);
    });
    return;
  }
  // How many come before each, of all: no branches to guess wrong.
  float values[FEW];
  int32_t sorted[FEW];
  for (int32_t i = 0; i < count; ++i) values[i] = worth(tokens[i]);
  for (int32_t i = 0; i < count; ++i) {
    const float value = values[i];
    const int32_t token = tokens[i];
    int32_t before = 0;
    for (int32_t j = 0; j < count; ++j) before += (values[j] > value) | ((values[j] == value) & (tokens[j] < token));
    sorted[before] = token;
  }
  std::copy(sorted, sorted + count, tokens);
}

}  // namespace asrkern
