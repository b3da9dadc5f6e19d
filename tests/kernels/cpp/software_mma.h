// mma.sync in plain C++.
#pragma once

#include <cstdint>

#include "kernels/rnn/element.h"

namespace asrkern {

inline float half_of_word(uint32_t word, int half) { return float_of((half ? word >> 16 : word & 0xffff) << 16); }

// sums += A B as the PTX ISA lays the registers of mma.m16n8k16 (bf16) and mma.m16n8k8 (tf32) out over 32 lanes.
template <class T>
void software_mma(float (&sums)[32][4], const uint32_t (&a)[32][4], const uint32_t (&b)[32][2]) {
  constexpr int kSize = sizeof(T) == 2 ? 16 : 8;
  float rows[16][kSize], columns[kSize][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 4; ++i)
      for (int half = 0; half < int(4 / sizeof(T)); ++half) {
        const int row = i == 0 || i == 2 ? group : group + 8;
        if (sizeof(T) == 2)
          rows[row][in_group * 2 + half + (i >= 2 ? 8 : 0)] = half_of_word(a[lane][i], half);
        else
          rows[row][in_group + (i >= 2 ? 4 : 0)] = float_of(a[lane][i]);
      }
    for (int i = 0; i < 2; ++i)
      for (int half = 0; half < int(4 / sizeof(T)); ++half)
        if (sizeof(T) == 2)
          columns[in_group * 2 + half + 8 * i][group] = half_of_word(b[lane][i], half);
        else
          columns[in_group + 4 * i][group] = float_of(b[lane][i]);
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
      for (int k = 0; k < kSize; ++k) sums[lane][i] += rows[row][k] * columns[k][column];
    }
}

}  // namespace asrkern
