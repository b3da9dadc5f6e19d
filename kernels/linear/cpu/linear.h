// y = x Wᵀ + b over packed weights.
//
// Each output is the sum of its blocks in ascending order, and a block of kLinearBlock inputs is one chain
// acc = fma(x[k], w[k], acc) over ascending k, whatever the tile it falls in. So a row's result does not depend on how
// many rows are computed with it, on their order or on the number of threads, and an error does not grow along a chain
// of thousands of inputs.
#pragma once

#include <cstring>

#include "kernels/common/cpu/team.h"
#include "kernels/common/cpu/vec.h"

namespace asrkern::cpu {

// y = x Wᵀ · scale + bias, or y + x Wᵀ.
template <class T, class W>
struct Linear {
  const T* const* x;  // [rows] pointers to in_features contiguous values each
  int64_t rows;
  const W* weight;  // [out_features, in_features], or if transposed [in_features, out_features]
  int64_t out_features, in_features;
  T* const* y;               // [rows] pointers to out_features contiguous outputs each
  T* scratch;                // [linear_scratch_size]
  const T* scale = nullptr;  // [out_features] or null
  const T* bias = nullptr;   // [out_features] or null
  bool transposed = false;
  bool accumulate = false;  // the blocks are added to what is in y
};

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

// to[k·to_stride + j] = from[j·from_stride + k] for k < count and j < width, 0 from `columns` on. The scalar way.
template <class T, class W>
inline void transpose_block(const W* from, int64_t from_stride, int columns, int width, int64_t count, T* to,
                            int64_t to_stride) {
  for (int j = 0; j < width; ++j)
    for (int64_t k = 0; k < count; ++k) to[k * to_stride + j] = j < columns ? T(from[j * from_stride + k]) : T(0);
}

template <class T>
constexpr bool kIsFloat = false;
template <>
constexpr bool kIsFloat<float> = true;

#if defined(__AVX2__)
// Eight weights as floats.
inline __m256 load_eight(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 load_eight(const Bf16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline __m256 load_eight(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// r[j][k] becomes r[k][j].
inline void transpose_registers(__m256 (&r)[8]) {
  __m256 s[8];
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    const __m256 low = r[i];
    r[i] = _mm256_permute2f128_ps(low, r[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(low, r[i + 4], 0x31);
  }
}

// 8 × 8 weights as floats through registers.
template <class W>
inline void transpose_8x8(const W* from, int64_t from_stride, float* to, int64_t to_stride) {
  __m256 r[8];
  for (int i = 0; i < 8; ++i) r[i] = load_eight(from + i * from_stride);
  transpose_registers(r);
  for (int i = 0; i < 8; ++i) _mm256_storeu_ps(to + i * to_stride, r[i]);
}
#endif

// transpose_block for any extents, by register blocks where the ISA has them.
template <class T, class W>
inline void transpose(const W* from, int64_t from_stride, int columns, int width, int64_t count, T* to,
                      int64_t to_stride) {
#if defined(__AVX2__)
  if constexpr (kIsFloat<T>) {
    const int whole_columns = columns / 8 * 8;
    const int64_t whole_count = count / 8 * 8;
    for (int64_t k = 0; k < whole_count; k += 8)
      for (int j = 0; j < whole_columns; j += 8)
        transpose_8x8(from + j * from_stride + k, from_stride, to + k * to_stride + j, to_stride);
    transpose_block(from + whole_count, from_stride, whole_columns, whole_columns, count - whole_count,
                    to + whole_count * to_stride, to_stride);
    transpose_block(from + whole_columns * from_stride, from_stride, columns - whole_columns, width - whole_columns,
                    count, to + whole_columns, to_stride);
    return;
  }
#endif
  transpose_block(from, from_stride, columns, width, count, to, to_stride);
}

template <class T>
int64_t linear_packed_size(int64_t out_features, int64_t in_features) {
  return ceil_div(out_features, LinearTile<T>::kColumns) * LinearTile<T>::kColumns * in_features;
}

// One panel of a weight [out_features, in_features], or of one stored transposed, [in_features, out_features]:
// outputs from `column` on, of them `depth` inputs from `first` on → packed: [depth][kColumns], zero beyond
// out_features.
template <class T, class W>
void linear_pack_panel(const W* weight, bool transposed, int64_t out_features, int64_t in_features, int64_t column,
                       int64_t first, int64_t depth, T* packed) {
  constexpr int kColumns = LinearTile<T>::kColumns;
  const int columns = int(out_features - column < kColumns ? out_features - column : kColumns);
  if (!transposed) {
    transpose(weight + column * in_features + first, in_features, columns, kColumns, depth, packed, kColumns);
    return;
  }
  for (int64_t k = 0; k < depth; ++k)
    for (int j = 0; j < kColumns; ++j)
      packed[k * kColumns + j] = j < columns ? T(weight[(first + k) * out_features + column + j]) : T(0);
}

// Every panel, one after another.
template <class T>
void linear_pack(const ThreadPool& pool, const T* weight, bool transposed, int64_t out_features, int64_t in_features,
                 T* packed) {
  constexpr int kColumns = LinearTile<T>::kColumns;
  parallel_for(pool, ceil_div(out_features, kColumns), [=](int64_t panel) {
    linear_pack_panel(weight, transposed, out_features, in_features, panel * kColumns, 0, in_features,
                      packed + panel * kColumns * in_features);
  });
}

// Inputs of a chain, whose sum is then added to the blocks before it.
constexpr int64_t kLinearBlock = 256;

// acc[m][v] += Σ_k x[m][first + k] · panel[k][v].
template <class T, int kRows>
inline void linear_tile(const T* const* x, int64_t first, const T* panel, int64_t depth,
                        Vec<T> (&acc)[kRows][LinearTile<T>::kVecs]) {
  using V = Vec<T>;
  constexpr int kVecs = LinearTile<T>::kVecs;
  const T* rows[kRows];
  for (int m = 0; m < kRows; ++m) rows[m] = x[m] + first;
  for (int64_t k = 0; k < depth; ++k, panel += LinearTile<T>::kColumns) {
    V w[kVecs];
    for (int v = 0; v < kVecs; ++v) w[v] = V::load(panel + v * V::kWidth);
    for (int m = 0; m < kRows; ++m) {
      const V value = V::set1(rows[m][k]);
      for (int v = 0; v < kVecs; ++v) acc[m][v] = fma(value, w[v], acc[m][v]);
    }
  }
}

// One panel of outputs for kRows rows. y[m] points at the row's first output of this panel, where the sum waits between
// two blocks; with `accumulate` it starts from what is there. It is then multiplied by the scale and the bias is added,
// if there are any.
template <class T, int kRows>
void linear_rows(const T* const* x, const T* panel, int64_t in_features, const T* scale, const T* bias, bool accumulate,
                 int columns, T* const* y) {
  using V = Vec<T>;
  constexpr int kVecs = LinearTile<T>::kVecs;
  int64_t first = 0;
  // Once where there are no inputs, too.
  do {
    const int64_t left = in_features - first, depth = left < kLinearBlock ? left : kLinearBlock;
    V acc[kRows][kVecs];
    for (int m = 0; m < kRows; ++m)
      for (int v = 0; v < kVecs; ++v) acc[m][v] = V::set1(0);
    linear_tile<T, kRows>(x, first, panel + first * LinearTile<T>::kColumns, depth, acc);
    for (int v = 0; v < kVecs; ++v) {
      const int count = columns - v * V::kWidth;
      if (count <= 0) break;
      if (accumulate || first > 0)
        for (int m = 0; m < kRows; ++m) acc[m][v] = V::load(y[m] + v * V::kWidth, count) + acc[m][v];
      if (scale && depth == left)
        for (int m = 0; m < kRows; ++m) acc[m][v] = acc[m][v] * V::load(scale + v * V::kWidth, count);
      if (bias && depth == left)
        for (int m = 0; m < kRows; ++m) acc[m][v] = acc[m][v] + V::load(bias + v * V::kWidth, count);
      for (int m = 0; m < kRows; ++m) acc[m][v].store(y[m] + v * V::kWidth, count);
    }
    first += depth;
  } while (first < in_features);
}

// linear_rows for any number of rows: full tiles, then one tile of exactly what is left.
template <class T, int kRows = LinearTile<T>::kRows>
void linear_panel(const T* const* x, int64_t rows, const T* panel, int64_t in_features, const T* scale, const T* bias,
                  bool accumulate, int columns, T* const* y) {
  for (; rows >= kRows; rows -= kRows, x += kRows, y += kRows)
    linear_rows<T, kRows>(x, panel, in_features, scale, bias, accumulate, columns, y);
  if constexpr (kRows > 1) {
    if (rows > 0) linear_panel<T, kRows - 1>(x, rows, panel, in_features, scale, bias, accumulate, columns, y);
  }
}

// Inputs of a panel that are packed at once, whole blocks: few enough to stay in the nearest cache where few rows pass
// by.
constexpr int64_t kLinearDepth = 8 * kLinearBlock, kLinearDepthOfFewRows = kLinearBlock;

// Whatever the rows are: see linear_dot.h for what depends on them.
template <class T>
int64_t linear_scratch_size(const ThreadPool& pool, int64_t, int64_t in_features) {
  return pool.threads * LinearTile<T>::kColumns * (in_features < kLinearDepth ? in_features : kLinearDepth);
}

// Each panel of weights is packed by the thread that uses it, into the cache, and all rows pass by it there: the
// weights are read once and no packed copy of them is kept. Between two parts of a panel's inputs the sums wait in y.
template <class T, class W>
void linear(const ThreadPool& pool, const Linear<T, W>& a) {
  constexpr int kColumns = LinearTile<T>::kColumns, kRows = LinearTile<T>::kRows;
  const int64_t panels = ceil_div(a.out_features, kColumns), workers = pool.threads;
  // Rows are cut only where there are too few panels to share out.
  const int64_t cuts = panels < 4 * workers && a.rows >= 8 * kRows * workers ? workers : 1;
  const int64_t chunk = ceil_div(ceil_div(a.rows, cuts), kRows) * kRows;
  const int64_t most = a.rows <= kRows ? kLinearDepthOfFewRows : kLinearDepth;
  parallel_for(pool, workers, [=](int64_t worker) {
    T* packed = a.scratch + worker * kColumns * (a.in_features < kLinearDepth ? a.in_features : kLinearDepth);
    const T* inputs[kRows * 8];
    T* outputs[kRows * 8];
    for (int64_t task = worker; task < panels * cuts; task += workers) {
      const int64_t column = task / cuts * kColumns, begin = task % cuts * chunk;
      const int64_t end = begin + chunk < a.rows ? begin + chunk : a.rows;
      const int columns = int(a.out_features - column < kColumns ? a.out_features - column : kColumns);
      int64_t first = 0;
      // Once where there are no inputs, too.
      do {
        const int64_t left = a.in_features - first, depth = left < most ? left : most;
        const bool last = depth == left;
        if (begin < end)
          linear_pack_panel(a.weight, a.transposed, a.out_features, a.in_features, column, first, depth, packed);
        for (int64_t row = begin; row < end; row += kRows * 8) {
          const int64_t count = end - row < kRows * 8 ? end - row : kRows * 8;
          for (int64_t m = 0; m < count; ++m) {
            inputs[m] = a.x[row + m] + first;
            outputs[m] = a.y[row + m] + column;
          }
          linear_panel<T>(inputs, count, packed, depth, last && a.scale ? a.scale + column : nullptr,
                          last && a.bias ? a.bias + column : nullptr, a.accumulate || first > 0, columns, outputs);
        }
        first += depth;
      } while (first < a.in_features);
    }
  });
}

// from: [rows, columns] → to: [columns, rows]
template <class T>
void transpose_matrix(const ThreadPool& pool, const T* from, int64_t rows, int64_t columns, T* to) {
  constexpr int64_t kSlice = 64;
  parallel_for(pool, ceil_div(columns, kSlice), [=](int64_t slice) {
    const int64_t first = slice * kSlice, count = columns - first < kSlice ? columns - first : kSlice;
    transpose(from + first, columns, int(rows), int(rows), count, to + first * rows, rows);
  });
}

}  // namespace
}  // namespace asrkern::cpu
