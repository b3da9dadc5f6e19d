// A given text under CTC (Graves et al. 2006): the sum over all its alignments. The states of a
// text are its tokens with a blank before, between and after them: state 2i + 1 is token i, even states are blank.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

ASRKERN_HOST_DEVICE inline int64_t ctc_states(int64_t tokens) { return 2 * tokens + 1; }

// Whether a state may follow the one two before it: a token after a different one, without a blank between.
ASRKERN_HOST_DEVICE inline bool ctc_may_skip(const int64_t* tokens, int64_t state) {
  return state % 2 == 1 && state >= 3 && tokens[state / 2] != tokens[state / 2 - 1];
}

// Goes from frame to frame and leaves each state's score after the last one: the sum of all alignments that end in it,
// as `add` joins two scores. scores: [states + 2]; state s is at s + 2, the first two stay −inf.
template <class Add>
void ctc_walk(const float* log_probs, int64_t frames, int64_t vocabulary, const int64_t* tokens, int64_t count,
              int64_t blank, double zero, const Add& add, double* scores) {
  const int64_t states = ctc_states(count);
  for (int64_t s = 0; s < states + 2; ++s) scores[s] = zero;
  // Before the first frame only this score is possible: that of a blank before state 0.
  scores[1] = 0;
  for (int64_t t = 0; t < frames; ++t, log_probs += vocabulary) {
    // From the last state to the first: so the scores of its predecessors are still those of the frame before.
    for (int64_t s = states; s-- > 0;) {
      // In the first frame state 1, the first token, may follow the blank before state 0, as state 0 does.
      const bool skips = ctc_may_skip(tokens, s) || (t == 0 && s == 1);
      const double skip = skips ? scores[s] : zero;
      scores[s + 2] = add(add(scores[s + 2], scores[s + 1]), skip) + double(log_probs[s % 2 ? tokens[s / 2] : blank]);
    }
    scores[1] = zero;
  }
}

}  // namespace asrkern
