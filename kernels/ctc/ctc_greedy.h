// Greedy (best path) CTC decoding: the likeliest token of each frame, repeats merged, blanks dropped (Graves et al.
// 2006).
#pragma once

#include <cstdint>

namespace asrkern {

struct GreedyResult {
  int64_t count;      // tokens written
  int64_t nan_frame;  // the first frame that holds a NaN, or −1
};

// log_probs: [frames, vocabulary], rows `stride` apart. tokens, timesteps: [frames]: each token of the path, and the
// frame where it begins. The first of equal scores wins.
template <class T>
GreedyResult ctc_greedy(const T* log_probs, int64_t frames, int64_t vocabulary, int64_t stride, int64_t blank,
                        int64_t* tokens, int64_t* timesteps) {
  GreedyResult result{0, -1};
  int64_t previous = blank;
  for (int64_t t = 0; t < frames; ++t) {
    const T* row = log_probs + t * stride;
    int64_t best = 0;
    for (int64_t v = 0; v < vocabulary; ++v) {
      if (row[v] != row[v]) {
        result.nan_frame = t;
        return result;
      }
      if (row[v] > row[best]) best = v;
    }
    if (best != blank && best != previous) {
      tokens[result.count] = best;
      timesteps[result.count++] = t;
    }
    previous = best;
  }
  return result;
}

}  // namespace asrkern
