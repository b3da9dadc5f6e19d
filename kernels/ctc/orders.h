// Orders that the beam search asks for now and then. Functions of a file of their own: what is compiled for each
// instruction set uses no inline function of the standard library.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_beam.h"

namespace asrkern {

// Sorts candidates of one slot by token and choice.
void sort_candidates(CtcCandidate* candidates, int32_t count);

// Sorts tokens, which differ, by worth[token], the most first; of equals the smallest.
void sort_by_worth(int32_t* tokens, int32_t count, const float* worth);

// The n-th largest of [count] values, n ≥ 1; leaves them in another order.
float nth_largest(float* values, int32_t count, int32_t n);

}  // namespace asrkern
