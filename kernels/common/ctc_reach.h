// Which tokens may extend which prefixes of a beam above a bar, where each token has a bit: asked for all prefixes at
// once and without branches, so that a search goes only through extensions that are worth it.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/vector_copies.h"

namespace asrkern {

constexpr int32_t CTC_REACH_TOKENS = 64;  // tokens that have a bit, in two words
constexpr int32_t CTC_REACH_WORD = 32;

// Prefixes: what kernels/common/ctc_beam.h says of each.
struct CtcReachPrefixes {
  int32_t count;
  const float* total;
  const float* reach;  // no token gains more
  const float* blank;  // counts in place of total where the token is the last one once more
  const int32_t* last;
  const float* row_last;  // row[last]
};

// bits: [count] those of [token_count] tokens, of the 32 from `first` on, that may lead above `bar`. row: by token.
ASRKERN_VECTOR_COPIES inline void tokens_above(const CtcReachPrefixes& prefixes, const int32_t* tokens,
                                               int32_t token_count, int32_t first, const float* row, float bar,
                                               uint32_t* __restrict__ bits) {
  constexpr int32_t TOGETHER = 4;
  const int32_t count = prefixes.count;
  const float *const total = prefixes.total, *const blank = prefixes.blank, *const reach = prefixes.reach,
                     *const row_last = prefixes.row_last;
  for (int32_t i = 0; i < count; ++i) bits[i] = 0;
  for (int32_t k = 0; k < token_count; k += TOGETHER) {
    float least[TOGETHER];
    uint32_t bit[TOGETHER];
    for (int32_t j = 0; j < TOGETHER; ++j) {
      const bool there = k + j < token_count;
      least[j] = there ? bar - row[tokens[k + j]] : INFINITY;
      bit[j] = there ? 1u << (tokens[k + j] - first) : 0;
    }
    for (int32_t i = 0; i < count; ++i) {
      const float reached = total[i] + reach[i];
      uint32_t found = bits[i];
      for (int32_t j = 0; j < TOGETHER; ++j) found |= reached > least[j] ? bit[j] : 0;
      bits[i] = found;
    }
  }
  for (int32_t i = 0; i < count; ++i) {
    const uint32_t last = uint32_t(prefixes.last[i] - first),
                   bit = last < CTC_REACH_WORD ? 1u << (last % CTC_REACH_WORD) : 0;
    bits[i] &= blank[i] + reach[i] + row_last[i] > bar ? ~0u : ~bit;
  }
}

}  // namespace asrkern
