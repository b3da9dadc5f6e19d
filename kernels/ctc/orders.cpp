#include "kernels/ctc/orders.h"

#include <algorithm>

namespace asrkern {

void sort_candidates(CtcCandidate* candidates, int32_t count) {
  std::sort(candidates, candidates + count, [](const CtcCandidate& a, const CtcCandidate& b) {
    return a.token != b.token ? a.token < b.token : a.choice < b.choice;
  });
}

void sort_by_worth(int32_t* tokens, int32_t count, const float* worth) {
  std::sort(tokens, tokens + count,
            [worth](int32_t a, int32_t b) { return worth[a] > worth[b] || (worth[a] == worth[b] && a < b); });
}

float nth_largest(float* values, int32_t count, int32_t n) {
  float* const found = values + n - 1;
  std::nth_element(values, found, values + count, [](float a, float b) { return a > b; });
  return *found;
}

}  // namespace asrkern
