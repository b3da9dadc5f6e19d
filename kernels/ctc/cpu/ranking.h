// Selection and order by floats, for the lengths that a beam search has.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/ctc/orders.h"

namespace asrkern {
namespace {

// The largest of value(0) … value(count − 1) and `least`. Part of its caller, so that it vectorises as that does.
template <class Value>
[[gnu::always_inline]] inline float largest(int32_t count, float least, const Value& value) {
  // In lanes, which vectorise: a single maximum would wait for itself.
  constexpr int32_t kLanes = 16;
  float lanes[kLanes];
  for (float& lane : lanes) lane = least;
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      const float x = value(i + lane);
      lanes[lane] = x > lanes[lane] ? x : lanes[lane];
    }
  for (; i < count; ++i) lanes[0] = value(i) > lanes[0] ? value(i) : lanes[0];
  for (int32_t half = kLanes / 2; half; half /= 2)
    for (int32_t lane = 0; lane < half; ++lane)
      lanes[lane] = lanes[lane + half] > lanes[lane] ? lanes[lane + half] : lanes[lane];
  return lanes[0];
}

// How many of [count] values reach a limit.
inline int32_t count_from(const float* values, int32_t count, float limit) {
  int32_t reached = 0;
  for (int32_t i = 0; i < count; ++i) reached += values[i] >= limit;
  return reached;
}

// What the best of some values reach. ties: kNoTies: they alone; else how many of those that equal the limit are among
// the best.
struct Cut {
  float limit;
  int32_t ties;
};
constexpr int32_t kNoTies = -1;

// Between the n-th largest of [count] values and the next; more than n reach `low`. By bisection, so that values are
// only counted, which vectorises.
inline Cut cut_behind(const float* values, int32_t count, int32_t n, float low) {
  float most = largest(count, low, [values](int32_t i) { return values[i]; });
  // The least that reaches `low`, so that few steps do.
  low = -largest(count, -most, [values, low](int32_t i) { return values[i] >= low ? -values[i] : -INFINITY; });
  // More than n reach `low`; once it has been looked at, fewer reach `most`.
  for (float middle = most;;) {
    int32_t reached = 0;
    for (int32_t i = 0; i < count; ++i) reached += values[i] >= middle;
    if (reached == n) return {middle, kNoTies};
    (reached > n ? low : most) = middle;
    middle = low + 0.5f * (most - low);
    if (!(middle > low && middle < most)) break;
  }
  int32_t above = 0;
  for (int32_t i = 0; i < count; ++i) above += values[i] > low;
  return {low, n - above};
}

// As sort_by_worth, and quick where there are few.
inline void order_by_worth(int32_t* tokens, int32_t count, const float* worth) {
  constexpr int32_t kFew = 64;
  if (count > kFew) return sort_by_worth(tokens, count, worth);
  // How many come before each, of all: no branches to guess wrong.
  float values[kFew];
  int32_t sorted[kFew];
  for (int32_t i = 0; i < count; ++i) values[i] = worth[tokens[i]];
  for (int32_t i = 0; i < count; ++i) {
    const float value = values[i];
    const int32_t token = tokens[i];
    int32_t before = 0;
    for (int32_t j = 0; j < count; ++j) before += (values[j] > value) | ((values[j] == value) & (tokens[j] < token));
    sorted[before] = token;
  }
  for (int32_t i = 0; i < count; ++i) tokens[i] = sorted[i];
}

}  // namespace
}  // namespace asrkern
