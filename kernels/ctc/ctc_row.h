// One frame of log-probabilities as the beam search takes it: what can be wrong with it, and how it is pruned.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"
#include "kernels/common/log_space.h"

namespace asrkern {

enum CtcError : int32_t {
  kCtcOk = 0,
  kCtcNaN = 1,
  kCtcAllZero = 2,        // every token has a log-probability of −inf
  kCtcProbabilities = 3,  // probabilities in place of their logarithms
  kCtcNotNormalised = 4,  // logits
  kCtcNoPrefix = 5,       // no prefix of the beam can go on
  kCtcBadLength = 6,      // a length that is negative or beyond the frames
  kCtcNoRoom = 7,         // more prefixes or words than a device's memory holds
  kCtcInfinite = 8,       // +inf, or close to it
};

struct CtcRowOptions {
  int32_t vocabulary;
  int32_t blank;
  int32_t top_tokens;     // only that many of the likeliest tokens of a frame are possible
  float token_min_logp;   // less likely tokens are impossible, but never a frame's likeliest
  float blank_penalty;    // subtracted from the log-probability of blank before anything else
  bool check_normalized;  // a frame's probabilities must sum to 1, within a factor of e^0.5
};

// Looks at the values of a frame, one after the other. The checks of parts of a frame can be merged.
struct CtcRowCheck {
  float best = kLogZero * 2;
  float sum = 0;  // of probabilities
  bool number = true, probabilities = true;

  ASRKERN_HOST_DEVICE void add(float x) {
    number &= x == x;
    probabilities &= x >= 0 && x < 1.001f;
    best = x > best ? x : best;
    sum += exp_nonpositive(x < 1.0f ? x : 1.0f);
  }

  ASRKERN_HOST_DEVICE CtcRowCheck merged(const CtcRowCheck& other) const {
    CtcRowCheck both;
    both.best = best > other.best ? best : other.best;
    both.sum = sum + other.sum;
    both.number = number && other.number;
    both.probabilities = probabilities && other.probabilities;
    return both;
  }

  // What the values are instead of log-probabilities, or kCtcOk.
  ASRKERN_HOST_DEVICE CtcError verdict(bool check_normalized) const {
    if (!number) return kCtcNaN;
    if (best < -kLargestScore) return kCtcAllZero;
    if (best > kLargestScore) return kCtcInfinite;
    if (!check_normalized || (best < 0.5f && sum > 0.6065f && sum < 1.6488f)) return kCtcOk;
    return probabilities ? kCtcProbabilities : kCtcNotNormalised;
  }
};

}  // namespace asrkern
