// One frame of log-probabilities by one thread: checked, pruned.
#pragma once

#include <cstdint>

#include "kernels/ctc/cpu/ranking.h"
#include "kernels/ctc/ctc_row.h"
#include "kernels/ctc/orders.h"

namespace asrkern {
namespace {

// Rows of so many tokens are read in lanes, which vectorise; in one chain every addition would wait for the one before.
// Lanes have a cost that shorter rows do not earn back.
constexpr int32_t kLanedRow = 128;

// All instruction sets add in the same order.
inline CtcError ctc_check_row(const float* log_probs, int32_t vocabulary, bool check_normalized) {
  constexpr int32_t kLanes = 16;
  CtcRowCheck check;
  int32_t v = 0;
  if (vocabulary >= kLanedRow) {
    float best[kLanes], sum[kLanes];
    int32_t numbers[kLanes], probabilities[kLanes];
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      best[lane] = check.best;
      sum[lane] = 0;
      numbers[lane] = probabilities[lane] = 1;
    }
    for (; v + kLanes <= vocabulary; v += kLanes)
      for (int32_t lane = 0; lane < kLanes; ++lane) {
        const float x = log_probs[v + lane];
        numbers[lane] &= x == x;
        probabilities[lane] &= (x >= 0) & (x < 1.001f);
        best[lane] = x > best[lane] ? x : best[lane];
        sum[lane] += exp_nonpositive(x < 1.0f ? x : 1.0f);
      }
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      CtcRowCheck part;
      part.best = best[lane];
      part.sum = sum[lane];
      part.number = numbers[lane];
      part.probabilities = probabilities[lane];
      check = check.merged(part);
    }
  }
  for (; v < vocabulary; ++v) check.add(log_probs[v]);
  return check.verdict(check_normalized);
}

// Below which a frame's tokens are impossible.
inline float ctc_row_limit(const float* row, const CtcRowOptions& options, float* scratch) {
  const int32_t vocabulary = options.vocabulary;
  float limit = options.token_min_logp;
  if (options.top_tokens < vocabulary) {
    const float last = nth_largest(row, vocabulary, options.top_tokens, scratch);
    limit = limit > last ? limit : last;
  }
  float best = row[0];
  if (vocabulary >= kLanedRow)
    best = largest(vocabulary, best, [row](int32_t v) { return row[v]; });
  else
    for (int32_t v = 1; v < vocabulary; ++v) best = row[v] > best ? row[v] : best;
  return limit < best ? limit : best;
}

// Makes the row that the search adds: [vocabulary + 1] log-probabilities minus `shift`, with kLogZero for tokens that
// are impossible and for the sentinel at the end. scratch: [vocabulary].
inline void ctc_make_row(const float* log_probs, const CtcRowOptions& options, bool prune, float shift,
                         float* __restrict__ row, float* scratch) {
  const int32_t vocabulary = options.vocabulary;
  for (int32_t v = 0; v < vocabulary; ++v) row[v] = log_probs[v] > -kLargestScore ? log_probs[v] : kLogZero;
  row[vocabulary] = kLogZero;
  row[options.blank] -= options.blank_penalty;
  if (prune && (options.top_tokens < vocabulary || options.token_min_logp > -kLargestScore)) {
    const float limit = ctc_row_limit(row, options, scratch);
    for (int32_t v = 0; v < vocabulary; ++v) row[v] = (row[v] >= limit ? row[v] : kLogZero) - shift;
  } else {
    for (int32_t v = 0; v < vocabulary; ++v) row[v] -= shift;
  }
}

}  // namespace
}  // namespace asrkern
