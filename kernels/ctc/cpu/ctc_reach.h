// Which tokens may extend which prefixes above a bar, for vocabularies of at most kSetTokens. All prefixes are asked at
// once and without branches, so that a search only looks at extensions that are worth it.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/ctc/ctc_serial_beam.h"

namespace asrkern {
namespace {

// Columns of the prefixes; kernels/ctc/ctc_beam.h says what each is.
struct CtcReachPrefixes {
  int32_t count;
  const float* total;
  const float* inside_reach;
  const float* phrase_reach;
  const float* blank;  // in place of `total` where a token repeats the last one
  const int32_t* last;
  const float* row_last;         // row[last]
  const uint32_t* const* edges;  // the set of the tokens that continue a phrase; null: there are no phrases
};

// tokens_above, compiled with and without phrases.
template <bool phrases>
void find_above(const CtcReachPrefixes& prefixes, const int32_t* tokens, int32_t token_count, int32_t word,
                const float* row, float bar, uint32_t* __restrict__ bits) {
  constexpr int32_t kTogether = 4;
  const int32_t count = prefixes.count, first = word * kSetWordTokens;
  const uint32_t* const edges = phrases ? prefixes.edges[word] : nullptr;
  const float *const total = prefixes.total, *const blank = prefixes.blank, *const row_last = prefixes.row_last;
  const float *const inside_reach = prefixes.inside_reach, *const phrase_reach = prefixes.phrase_reach;
  for (int32_t i = 0; i < count; ++i) bits[i] = 0;
  for (int32_t k = 0; k < token_count; k += kTogether) {
    float least[kTogether];
    uint32_t bit[kTogether];
    for (int32_t j = 0; j < kTogether; ++j) {
      const bool there = k + j < token_count;
      least[j] = there ? bar - row[tokens[k + j]] : INFINITY;
      bit[j] = there ? 1u << (tokens[k + j] - first) : 0;
    }
    for (int32_t i = 0; i < count; ++i) {
      const float off_phrase = total[i] + inside_reach[i];
      uint32_t found = 0;
// Unrolled, so that GCC makes vectors of the loop over prefixes.
#pragma GCC unroll 4
      for (int32_t j = 0; j < kTogether; ++j) found |= off_phrase > least[j] ? bit[j] : 0;
      if constexpr (phrases) {
        const float on_phrase = total[i] + phrase_reach[i];
        uint32_t found_on = 0;
#pragma GCC unroll 4
        for (int32_t j = 0; j < kTogether; ++j) found_on |= on_phrase > least[j] ? bit[j] : 0;
        found = (found & ~edges[i]) | (found_on & edges[i]);
      }
      bits[i] |= found;
    }
  }
  for (int32_t i = 0; i < count; ++i) {
    const uint32_t last = uint32_t(prefixes.last[i] - first),
                   bit = last < kSetWordTokens ? 1u << (last % kSetWordTokens) : 0;
    bits[i] &= blank[i] + phrase_reach[i] + row_last[i] > bar ? ~0u : ~bit;
  }
}

// bits: [count] for each prefix the set of those tokens, in one word of 32, that may lead above `bar`. `tokens`
// are of set word `word`. row: by token.
inline void tokens_above(const CtcReachPrefixes& prefixes, const int32_t* tokens, int32_t token_count, int32_t word,
                         const float* row, float bar, uint32_t* bits) {
  (prefixes.edges ? find_above<true> : find_above<false>)(prefixes, tokens, token_count, word, row, bar, bits);
}

}  // namespace
}  // namespace asrkern
