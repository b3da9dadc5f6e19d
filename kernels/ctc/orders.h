// Sorts that the beam search needs now and then. They are in a file of their own because what is compiled for each
// instruction set must not use inline functions of the standard library.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_beam.h"

namespace asrkern {

// Sorts candidates of one slot by token and choice.
void sort_candidates(CtcCandidate* candidates, int32_t count);

// Sorts tokens, all different, by worth[token], the largest first. Of tokens with equal worth the smallest is first.
void sort_by_worth(int32_t* tokens, int32_t count, const float* worth);

// The n-th largest of [count] finite values, 1 ≤ n ≤ count. scratch: [count].
float nth_largest(const float* values, int32_t count, int32_t n, float* scratch);

}  // namespace asrkern
