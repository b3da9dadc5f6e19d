// Checks of arrays from outside. Every call of the operation checks all of its arrays, so the loops have no exits, and
// vectorise.
#pragma once

#include <cstdint>

#include "kernels/common/log_space.h"
#include "kernels/ctc/token_trie.h"

namespace asrkern::cpu {
namespace {

inline bool ascends(const int32_t* values, int64_t count) {
  int32_t wrong = 0;
  for (int64_t i = 1; i < count; ++i) wrong |= values[i - 1] > values[i];
  return !wrong;
}

inline bool all_below(const int32_t* values, int64_t count, uint32_t limit) {
  int32_t wrong = 0;
  for (int64_t i = 0; i < count; ++i) wrong |= uint32_t(values[i]) >= limit;
  return !wrong;
}

// Whether all are scores: finite and below kLargestScore, or impossible. With others (NaN, too large) the search could
// not order its prefixes.
inline bool all_scores(const float* values, int64_t count) {
  int32_t wrong = 0;
  for (int64_t i = 0; i < count; ++i) wrong |= !(__builtin_fabsf(values[i]) < kLargestScore) & (values[i] != kLogZero);
  return !wrong;
}

// Whether each mask has as many bits as its node has edges, and equals the difference of `sums` between the ends of
// those edges. See masks_are_sums.
inline bool masks_are_differences(const int64_t* masks, int64_t count, const int32_t* begin, const uint64_t* sums) {
  uint64_t wrong = 0;
  for (int64_t i = 0; i < count; ++i)
    wrong |= uint64_t(count_bits(uint64_t(masks[i]))) ^ uint64_t(begin[i + 1] - begin[i]);
  for (int64_t i = 0; i < count; ++i) wrong |= (sums[begin[i + 1]] - sums[begin[i]]) ^ uint64_t(masks[i]);
  return wrong == 0;
}

}  // namespace
}  // namespace asrkern::cpu
