// One frame of log-probabilities as the beam search takes it: checked, pruned, its tokens in order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/log_space.h"

namespace asrkern {

enum CtcError : int32_t {
  kCtcOk = 0,
  kCtcNaN = 1,
  kCtcAllZero = 2,        // every token has a log-probability of −inf
  kCtcProbabilities = 3,  // probabilities in place of their logarithms
  kCtcNotNormalised = 4,  // logits
  kCtcNoPrefix = 5,       // no prefix of the beam can go on
};

struct CtcRowOptions {
  int32_t vocabulary;
  int32_t blank;
  int32_t top_tokens;     // only that many of the likeliest tokens of a frame are possible
  float token_min_logp;   // less likely tokens are impossible, unless it is the likeliest of the frame
  float blank_penalty;    // taken off the log-probability of blank before anything else
  bool check_normalised;  // a frame's probabilities must sum to 1, within a factor of e^0.5
};

// What the values of one frame are instead of log-probabilities, or kCtcOk.
inline CtcError ctc_check_row(const float* log_probs, int32_t vocabulary, bool check_normalised) {
  bool number = true, probabilities = true;
  float best = log_probs[0], sum = 0;
  for (int32_t v = 0; v < vocabulary; ++v) {
    const float x = log_probs[v];
    number &= x == x;
    probabilities &= x >= 0 && x < 1.001f;
    best = x > best ? x : best;
    sum += exp_nonpositive(x < 1.0f ? x : 1.0f);
  }
  if (!number) return kCtcNaN;
  if (best < kLogZero) return kCtcAllZero;
  if (!check_normalised || (best < 0.5f && sum > 0.6065f && sum < 1.6488f)) return kCtcOk;
  return probabilities ? kCtcProbabilities : kCtcNotNormalised;
}

// row: [vocabulary + 1], what the search adds for each token, `shift` taken off: kLogZero for those that are impossible
// and for the sentinel at the end. scratch: [vocabulary].
inline void ctc_make_row(const float* log_probs, const CtcRowOptions& options, bool prune, float shift, float* row,
                         float* scratch) {
  const int32_t vocabulary = options.vocabulary;
  for (int32_t v = 0; v < vocabulary; ++v) row[v] = log_probs[v] > kLogZero ? log_probs[v] : kLogZero;
  row[vocabulary] = kLogZero;
  row[options.blank] -= options.blank_penalty;
  if (prune) {
    float limit = options.token_min_logp;
    if (options.top_tokens < vocabulary) {
      for (int32_t v = 0; v < vocabulary; ++v) scratch[v] = row[v];
      float* last = scratch + options.top_tokens - 1;
      std::nth_element(scratch, last, scratch + vocabulary, [](float a, float b) { return a > b; });
      limit = limit > *last ? limit : *last;
    }
    float best = row[0];
    for (int32_t v = 1; v < vocabulary; ++v) best = row[v] > best ? row[v] : best;
    limit = limit < best ? limit : best;
    for (int32_t v = 0; v < vocabulary; ++v) row[v] = row[v] >= limit ? row[v] : kLogZero;
  }
  for (int32_t v = 0; v < vocabulary; ++v) row[v] -= shift;
}

}  // namespace asrkern
