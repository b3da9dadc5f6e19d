// mma.sync on the fragments of kernels/common/mma_fragments.h, and Half.
#pragma once

#include <cuda_fp16.h>

#include "kernels/common/element.h"
#include "kernels/common/mma_fragments.h"

namespace asrkern {

struct Half {
  uint16_t bits;
};

__device__ inline float to_float(Half value) { return __half2float(__ushort_as_half(value.bits)); }

template <>
__device__ inline Half from_float<Half>(float value) {
  return {__half_as_ushort(__float2half_rn(value))};
}

namespace cuda {

// sums += A B for one instruction; a, b: registers as in the PTX ISA.
__device__ inline void mma(Bf16, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma(Half, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma(float, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// volatile: weights in registers are to be split again at each step, not kept split.
__device__ inline uint32_t to_tf32(float value) {
  uint32_t bits;
  asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

// A float32 as two tf32 whose sum has 21 bits and more: high + low.
__device__ inline void split(const Words& words, Words& high, Words& low) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float value = __uint_as_float(words.word[i]);
    high.word[i] = to_tf32(value);
    low.word[i] = to_tf32(value - __uint_as_float(high.word[i]));
  }
}

// One instruction of a block.
template <class T>
__device__ inline void mma_step(float (&sums)[4], const Words& low_rows, const Words& high_rows, const Words& column,
                                int step) {
  const uint32_t b[2] = {b_register(column, step, 0), b_register(column, step, 1)};
  const uint32_t a[4] = {a_register(low_rows, high_rows, step, 0), a_register(low_rows, high_rows, step, 1),
                         a_register(low_rows, high_rows, step, 2), a_register(low_rows, high_rows, step, 3)};
  mma(T(), sums, a, b);
}

// sums[m][n] += the products of M row tiles and N column tiles over one block of k. float32 is the sum of two tf32; of
// their products low · low is below its rounding.
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
        // Split again for each m: registers are scarcer than instructions.
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

}  // namespace cuda
}  // namespace asrkern
