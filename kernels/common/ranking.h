// Selection and order by floats, for the lengths that a beam search has.
#pragma once

#include <algorithm>
#include <cstdint>

namespace asrkern {

// The n-th largest of [count] finite values, which are lost; equals: how many of the n largest are equal to it.
// Exact: values are counted in bins of equal width first, so that only those of one bin are compared with each other.
inline float nth_largest(float* values, int32_t count, int32_t n, int32_t& equals) {
  constexpr int32_t BINS = 256;
  float most = values[0], least = values[0];
  for (int32_t i = 1; i < count; ++i) {
    most = values[i] > most ? values[i] : most;
    least = values[i] < least ? values[i] : least;
  }
  int32_t before = 0, inside = count;  // values in larger bins, and in that of the n-th
  if (const float scale = (BINS - 1) / (most - least); scale > 0 && scale < 1e30f) {  // else they are all but equal
    const auto bin_of = [&](float value) { return std::clamp(int32_t((most - value) * scale), 0, BINS - 1); };
    int32_t sizes[BINS] = {};
    for (int32_t i = 0; i < count; ++i) ++sizes[bin_of(values[i])];
    int32_t bin = 0;
    while (before + sizes[bin] < n) before += sizes[bin++];
    inside = 0;
    for (int32_t i = 0; i < count; ++i) {
      const float value = values[i];
      values[inside] = value;
      inside += bin_of(value) == bin;
    }
  }
  float* const nth = values + (n - before - 1);
  std::nth_element(values, nth, values + inside, [](float a, float b) { return a > b; });
  equals = 1;
  for (const float* value = values; value < nth; ++value) equals += *value == *nth;
  return *nth;
}

// Sorts tokens, which differ, by their worth, the most first; of equals the smallest.
template <class Worth>
void order_by_worth(int32_t* tokens, int32_t count, const Worth& worth) {
  constexpr int32_t FEW = 64;
  if (count > FEW) {
    std::sort(tokens, tokens + count, [&worth](int32_t a, int32_t b) {
      const float worth_a = worth(a), worth_b = worth(b);
      return worth_a > worth_b || (worth_a == worth_b && a < b);
    });
    return;
  }
  // How many come before each, of all: no branches to guess wrong.
  float values[FEW];
  int32_t sorted[FEW];
  for (int32_t i = 0; i < count; ++i) values[i] = worth(tokens[i]);
  for (int32_t i = 0; i < count; ++i) {
    const float value = values[i];
    const int32_t token = tokens[i];
    int32_t before = 0;
    for (int32_t j = 0; j < count; ++j) before += (values[j] > value) | ((values[j] == value) & (tokens[j] < token));
    sorted[before] = token;
  }
  std::copy(sorted, sorted + count, tokens);
}

}  // namespace asrkern
