// Products of tiles from the fragments of kernels/rnn/mma_fragments.h.
#pragma once

#include "kernels/rnn/cuda/ptx.cuh"

namespace asrkern::cuda {

// Splits a float32 into two tf32, high + low, whose sum has at least 21 bits.
__device__ inline void split(const Words& words, Words& high, Words& low) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float value = float_of(words.word[i]);
    high.word[i] = to_tf32(value);
    low.word[i] = to_tf32(value - float_of(high.word[i]));
  }
}

// One instruction for a block of k.
template <class T>
__device__ inline void mma_step(float (&sums)[4], const Words& low_rows, const Words& high_rows, const Words& column,
                                int step) {
  const uint32_t b[2] = {b_register(column, step, 0), b_register(column, step, 1)};
  const uint32_t a[4] = {a_register(low_rows, high_rows, step, 0), a_register(low_rows, high_rows, step, 1),
                         a_register(low_rows, high_rows, step, 2), a_register(low_rows, high_rows, step, 3)};
  mma(T(), sums, a, b);
}

// sums[m][n] += the products of M row tiles and N column tiles over one block of k. A float32 is the sum of two tf32;
// the product of the two low ones is left out, since it is below float32's rounding.
template <class T, int M, int N>
__device__ inline void multiply_block(float (&sums)[M][N][4], const Words (&a)[M][2], const Words (&b)[N]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
      Words high[2], low[2];
      split(a[m][0], high[0], low[0]);
      split(a[m][1], high[1], low[1]);
#pragma unroll
      for (int n = 0; n < N; ++n) {
        // Splits again for each m: registers are scarcer than instructions.
        Words b_high, b_low;
        split(b[n], b_high, b_low);
#pragma unroll
        for (int step = 0; step < kStepsOfBlock; ++step) {
          mma_step<T>(sums[m][n], low[0], low[1], b_high, step);
          mma_step<T>(sums[m][n], high[0], high[1], b_low, step);
          mma_step<T>(sums[m][n], high[0], high[1], b_high, step);
        }
      }
    }
  } else {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int step = 0; step < kStepsOfBlock; ++step) mma_step<T>(sums[m][n], a[m][0], a[m][1], b[n], step);
  }
}

}  // namespace asrkern::cuda
