// Selects and sorts by floats; fast for as many values as a beam search has.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/ctc/orders.h"

namespace asrkern {
namespace {

// The largest of `least` and value(0) … value(count − 1). Always inlined, so that it vectorises as its caller does.
template <class Value>
[[gnu::always_inline]] inline float largest(int32_t count, float least, const Value& value) {
  // In lanes, which vectorise: with one maximum every step would wait for the one before.
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

// How many of [count] values are at least `limit`.
inline int32_t count_from(const float* values, int32_t count, float limit) {
  int32_t reached = 0;
  for (int32_t i = 0; i < count; ++i) reached += values[i] >= limit;
  return reached;
}

// Where the best of some values end. ties == kNoTies: the best are all values from `limit` on. Else they are all values
// above `limit`, and `ties` of those that equal it.
struct Cut {
  float limit;
  int32_t ties;
};
constexpr int32_t kNoTies = -1;

// Cuts [count] values, more than n of which reach `low`, behind the n-th largest. By bisection, which only counts
// values, and so vectorises.
inline Cut cut_behind(const float* values, int32_t count, int32_t n, float low) {
  float most = largest(count, low, [values](int32_t i) { return values[i]; });
  // Raises `low` to the smallest value that reaches it, which saves steps.
  low = -largest(count, -most, [values, low](int32_t i) { return values[i] >= low ? -values[i] : -INFINITY; });
  // More than n values reach `low`; fewer than n reach `most`, once it has been tried.
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

// sort_by_worth, but fast for few tokens.
inline void order_by_worth(int32_t* tokens, int32_t count, const float* worth) {
  constexpr int32_t kFew = 64;
  if (count > kFew) return sort_by_worth(tokens, count, worth);
  // Counts for each token how many come before it. No branch is predicted wrong.
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
