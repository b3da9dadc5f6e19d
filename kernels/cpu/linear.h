// y = x Wᵀ + b over packed weights.
//
// Each output is one chain acc = fma(x[k], w[k], acc) over ascending k, whatever the tile it falls in, so a row's
// result does not depend on how many rows are computed with it, on their order or on the number of threads.
#pragma once

#include <cstring>

#include "kernels/cpu/team.h"
#include "kernels/cpu/vec.h"

namespace asrkern::cpu {
namespace {

// kRows × kVecs accumulators, kVecs weights and one broadcast value have to fit the registers (32 or 16).
template <class T>
struct LinearTile {
  static constexpr int kVecs = 2;
#if defined(__AVX512F__)
  static constexpr int kRows = 12;
#else
  static constexpr int kRows = 6;
#endif
  static constexpr int kColumns = kVecs * Vec<T>::kWidth;
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
int64_t linear_packed_size(int64_t out_features, int64_t in_features) {
  return ceil_div(out_features, LinearTile<T>::kColumns) * LinearTile<T>::kColumns * in_features;
}

// weight(j, k) at weight[j·row_stride + k·column_stride] → packed: [panel][k][kColumns], zero beyond out_features.
template <class T>
void linear_pack(const ThreadPool& pool, const T* weight, int64_t row_stride, int64_t column_stride,
                 int64_t out_features, int64_t in_features, T* packed) {
  constexpr int kColumns = LinearTile<T>::kColumns;
  parallel_for(pool, ceil_div(out_features, kColumns), [=](int64_t panel) {
    const int64_t first = panel * kColumns;
    const int columns = int(out_features - first < kColumns ? out_features - first : kColumns);
    T* out = packed + first * in_features;
    const T* in = weight + first * row_stride;
    // Blocks of k, so that the strided side of the transposition stays in the first-level cache.
    constexpr int64_t kBlock = 64;
    for (int64_t k0 = 0; k0 < in_features; k0 += kBlock) {
      const int64_t k1 = k0 + kBlock < in_features ? k0 + kBlock : in_features;
      for (int j = 0; j < kColumns; ++j)
        for (int64_t k = k0; k < k1; ++k)
          out[k * kColumns + j] = j < columns ? in[j * row_stride + k * column_stride] : T(0);
    }
  });
}

// acc[m][v] += Σ_k x[m][k] · panel[k][v].
template <class T, int kRows>
inline void linear_tile(const T* const* x, const T* panel, int64_t in_features,
                        Vec<T> (&acc)[kRows][LinearTile<T>::kVecs]) {
  using V = Vec<T>;
  constexpr int kVecs = LinearTile<T>::kVecs;
  const T* rows[kRows];
  for (int m = 0; m < kRows; ++m) rows[m] = x[m];
  for (int64_t k = 0; k < in_features; ++k, panel += LinearTile<T>::kColumns) {
    V w[kVecs];
    for (int v = 0; v < kVecs; ++v) w[v] = V::load(panel + v * V::kWidth);
    for (int m = 0; m < kRows; ++m) {
      const V value = V::set1(rows[m][k]);
      for (int v = 0; v < kVecs; ++v) acc[m][v] = fma(value, w[v], acc[m][v]);
    }
  }
}

// One panel of outputs for kRows rows. y[m] points at the row's first output of this panel; with `accumulate` the chain
// starts from what is there, else from 0, and the bias (if any) is added after it.
template <class T, int kRows>
void linear_rows(const T* const* x, const T* panel, int64_t in_features, const T* bias, bool accumulate, int columns,
                 T* const* y) {
  using V = Vec<T>;
  constexpr int kVecs = LinearTile<T>::kVecs;
  V acc[kRows][kVecs];
  for (int m = 0; m < kRows; ++m)
    for (int v = 0; v < kVecs; ++v)
      acc[m][v] = accumulate ? V::load(y[m] + v * V::kWidth, columns - v * V::kWidth > 0 ? columns - v * V::kWidth : 0)
                             : V::set1(0);
  linear_tile<T, kRows>(x, panel, in_features, acc);
  for (int v = 0; v < kVecs; ++v) {
    const int count = columns - v * V::kWidth;
    if (count <= 0) break;
    const V b = bias ? V::load(bias + v * V::kWidth, count) : V::set1(0);
    for (int m = 0; m < kRows; ++m) (bias ? acc[m][v] + b : acc[m][v]).store(y[m] + v * V::kWidth, count);
  }
}

// linear_rows for any number of rows: full tiles, then one tile of exactly what is left.
template <class T, int kRows = LinearTile<T>::kRows>
void linear_panel(const T* const* x, int64_t rows, const T* panel, int64_t in_features, const T* bias, bool accumulate,
                  int columns, T* const* y) {
  for (; rows >= kRows; rows -= kRows, x += kRows, y += kRows)
    linear_rows<T, kRows>(x, panel, in_features, bias, accumulate, columns, y);
  if constexpr (kRows > 1) {
    if (rows > 0) linear_panel<T, kRows - 1>(x, rows, panel, in_features, bias, accumulate, columns, y);
  }
}

// x: `rows` pointers to in_features contiguous values each; packed: linear_pack's; bias: [out_features] or null;
// y: `rows` pointers to out_features contiguous outputs each.
template <class T>
void linear(const ThreadPool& pool, const T* const* x, int64_t rows, const T* packed, const T* bias,
            int64_t out_features, int64_t in_features, T* const* y) {
  if (rows == 0) return;
  constexpr int kColumns = LinearTile<T>::kColumns;
  // A panel of weights stays in the second-level cache while a chunk of rows passes by it. Rows are cut only where
  // there are too few panels to share out.
  const int64_t panels = ceil_div(out_features, kColumns);
  int64_t chunk = 32 * LinearTile<T>::kRows;
  if (panels < 4 * pool.threads) {
    const int64_t share = ceil_div(rows, ceil_div(4 * pool.threads, panels));
    if (share < chunk) chunk = ceil_div(share, LinearTile<T>::kRows) * LinearTile<T>::kRows;
  }
  const int64_t chunks = ceil_div(rows, chunk);
  parallel_for(pool, panels * chunks, [=](int64_t task) {
    const int64_t panel = task / chunks, row = task % chunks * chunk, column = panel * kColumns;
    const int64_t count = rows - row < chunk ? rows - row : chunk;
    const int columns = int(out_features - column < kColumns ? out_features - column : kColumns);
    T* outputs[32 * LinearTile<T>::kRows];
    for (int64_t m = 0; m < count; ++m) outputs[m] = y[row + m] + column;
    linear_panel<T>(x + row, count, packed + column * in_features, in_features, bias ? bias + column : nullptr, false,
                    columns, outputs);
  });
}

}  // namespace
}  // namespace asrkern::cpu
