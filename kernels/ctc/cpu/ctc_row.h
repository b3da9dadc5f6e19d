// One frame of log-probabilities by one thread: checked, pruned.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_row.h"
#include "kernels/ctc/orders.h"

namespace asrkern {
namespace {

inline CtcError ctc_check_row(const float* log_probs, int32_t vocabulary, bool check_normalized) {
  CtcRowCheck check;
  for (int32_t v = 0; v < vocabulary; ++v) check.add(log_probs[v]);
  return check.verdict(check_normalized);
}

// Makes the row that the search adds: [vocabulary + 1] log-probabilities minus `shift`, with kLogZero for tokens that
// are impossible and for the sentinel at the end. scratch: [vocabulary].
inline void ctc_make_row(const float* log_probs, const CtcRowOptions& options, bool prune, float shift, float* row,
                         float* scratch) {
  const int32_t vocabulary = options.vocabulary;
  for (int32_t v = 0; v < vocabulary; ++v) row[v] = log_probs[v] > -kLargestScore ? log_probs[v] : kLogZero;
  row[vocabulary] = kLogZero;
  row[options.blank] -= options.blank_penalty;
  if (prune) {
    float limit = options.token_min_logp;
    if (options.top_tokens < vocabulary) {
      for (int32_t v = 0; v < vocabulary; ++v) scratch[v] = row[v];
      const float last = nth_largest(scratch, vocabulary, options.top_tokens);
      limit = limit > last ? limit : last;
    }
    float best = row[0];
    for (int32_t v = 1; v < vocabulary; ++v) best = row[v] > best ? row[v] : best;
    limit = limit < best ? limit : best;
    for (int32_t v = 0; v < vocabulary; ++v) row[v] = row[v] >= limit ? row[v] : kLogZero;
  }
  for (int32_t v = 0; v < vocabulary; ++v) row[v] -= shift;
}

}  // namespace
}  // namespace asrkern
