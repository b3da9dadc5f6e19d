// y = x Wᵀ · scale + b over int8 weights and activations of eight bits: see int8_dot.h.
#pragma once

#include "kernels/linear/cpu/int8_dot.h"
#include "kernels/linear/cpu/linear.h"

namespace asrkern::cpu {
namespace {

// The kDepth weights of group g of a row j go to to[g · to_stride + j · kDepth], for kColumns rows; zeros where there
// are no more than `columns` rows and `in_features` weights.
template <class T, int kColumns>
void interleave(const Int8Dot* from, int64_t from_stride, int columns, int64_t in_features, Int8Dot* to,
                int64_t to_stride) {
  constexpr int kDepth = Product<T, Int8Dot>::kDepth;
  int64_t done = 0;
#if defined(__AVX2__)
  // Eight rows of eight times four weights, which move as 32 bits.
  for (; columns == kColumns && done + 32 <= in_features; done += 32)
    for (int j = 0; j < kColumns; j += 8) {
      __m256 r[8];
      for (int i = 0; i < 8; ++i)
        r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(from + (j + i) * from_stride + done));
      transpose_registers(r);
      for (int i = 0; i < 8; ++i) {
        Int8Dot* out = to + (done + 4 * i) / kDepth * to_stride + j * kDepth;
        __m256i four = _mm256_castps_si256(r[i]);
        if constexpr (kDepth == 4) {
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), four);
        } else {
          const __m256i halves = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                                  0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
          four = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(four, halves), 0xD8);
          _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(four));
          _mm_storeu_si128(reinterpret_cast<__m128i*>(out + to_stride), _mm256_extracti128_si256(four, 1));
        }
      }
    }
#endif
  for (int64_t g = done / kDepth; g * kDepth < in_features; ++g)
    for (int j = 0; j < kColumns; ++j)
      for (int i = 0; i < kDepth; ++i) {
        const int64_t k = g * kDepth + i;
        to[g * to_stride + j * kDepth + i] = j < columns && k < in_features ? from[j * from_stride + k] : Int8Dot{0};
      }
}

// Weights in `vectors` vectors of lanes side by side: their heads, then their groups, which interleave has filled in.
template <class T>
void set_heads(int vectors, int64_t groups, Int8Dot* packed) {
  using P = Product<T, Int8Dot>;
  constexpr int kWidth = Vec<T>::kWidth;
  for (int v = 0; v < vectors; ++v) {
    typename P::Sum sum = P::zero();
    const Int8Dot* weight = packed + vectors * kWidth * P::kHead + v * kWidth * P::kDepth;
    if constexpr (P::kZero != 0)
      for (int64_t g = 0; g < groups; ++g)
        sum = P::add(P::broadcast(P::kZero), P::load(weight + g * vectors * kWidth * P::kDepth), sum);
    P::store(P::negative(sum), packed + v * kWidth * P::kHead);
  }
}

// Bytes of lanes' weights with their heads.
template <class T>
constexpr int64_t dot_packed_size(int64_t lanes, int64_t in_features) {
  using P = Product<T, Int8Dot>;
  return lanes * (P::kHead + P::kDepth * operand_count<T, Int8Dot>(in_features));
}

// One panel of outputs for kRows rows: as linear_rows.
template <class T, int kRows>
void linear_dot_rows(const uint32_t* const* x, const T* x_scale, const Int8Dot* panel, int64_t groups, const T* scale,
                     const T* bias, int columns, T* const* y) {
  using V = Vec<T>;
  using P = Product<T, Int8Dot>;
  constexpr int kVecs = LinearTile<T>::kVecs, kColumns = LinearTile<T>::kColumns;
  const uint32_t* rows[kRows];
  typename P::Sum sum[kRows][kVecs];
  for (int m = 0; m < kRows; ++m) {
    rows[m] = x[m];
    for (int v = 0; v < kVecs; ++v) sum[m][v] = P::start(panel + v * V::kWidth * P::kHead);
  }
  panel += kColumns * P::kHead;
  for (int64_t g = 0; g < groups; ++g, panel += kColumns * P::kDepth) {
    decltype(P::load(panel)) w[kVecs];
    for (int v = 0; v < kVecs; ++v) w[v] = P::load(panel + v * V::kWidth * P::kDepth);
    for (int m = 0; m < kRows; ++m) {
      const auto value = P::broadcast(rows[m][g]);
      for (int v = 0; v < kVecs; ++v) sum[m][v] = P::add(value, w[v], sum[m][v]);
    }
  }
  for (int v = 0; v < kVecs; ++v) {
    const int count = columns - v * V::kWidth;
    if (count <= 0) break;
    for (int m = 0; m < kRows; ++m) {
      V of_both = V::set1(x_scale[m]);
      if (scale) of_both = of_both * V::load(scale + v * V::kWidth, count);
      V value = P::value(sum[m][v]) * of_both;
      if (bias) value = value + V::load(bias + v * V::kWidth, count);
      value.store(y[m] + v * V::kWidth, count);
    }
  }
}

template <class T, int kRows = LinearTile<T>::kRows>
void linear_dot_panel(const uint32_t* const* x, const T* x_scale, int64_t rows, const Int8Dot* panel, int64_t groups,
                      const T* scale, const T* bias, int columns, T* const* y) {
  for (; rows >= kRows; rows -= kRows, x += kRows, x_scale += kRows, y += kRows)
    linear_dot_rows<T, kRows>(x, x_scale, panel, groups, scale, bias, columns, y);
  if constexpr (kRows > 1) {
    if (rows > 0) linear_dot_panel<T, kRows - 1>(x, x_scale, rows, panel, groups, scale, bias, columns, y);
  }
}

// Few rows meet the weights as they are: packing them would take longer than the products.
constexpr int64_t kFewDotRows = 4;

// Outputs [begin, end) of kRows rows. Features lie side by side in a vector, and its lanes are summed at the end.
template <class T, int kRows>
void linear_dot_few(const Linear<T, Int8Dot>& a, const uint32_t* const* x, const T* x_scale, int64_t begin,
                    int64_t end) {
  using P = Product<T, Int8Dot>;
  constexpr int kStep = Vec<T>::kWidth * P::kDepth;  // features of a vector
  const int64_t whole = a.in_features / kStep * kStep;
  for (int64_t output = begin; output < end; ++output) {
    const Int8Dot* weight = a.weight + output * a.in_features;
    typename P::Sum sum[kRows], of_zeros = P::zero();
    for (int m = 0; m < kRows; ++m) sum[m] = P::zero();
    const auto add = [&](const Int8Dot* weights, int64_t k) {
      const auto w = P::load(weights);
      if constexpr (P::kZero != 0) of_zeros = P::add(P::broadcast(P::kZero), w, of_zeros);
      for (int m = 0; m < kRows; ++m) sum[m] = P::add(P::load_operands(x[m] + k / P::kDepth), w, sum[m]);
    };
    for (int64_t k = 0; k < whole; k += kStep) add(weight + k, k);
    if (whole < a.in_features) {
      // What follows a row in the scratch meets zeros. Not a plain loop: see findings/gcc_vnni_dot.sh.
      Int8Dot rest[kStep] = {};
      std::memcpy(rest, weight + whole, a.in_features - whole);
      add(rest, whole);
    }
    for (int m = 0; m < kRows; ++m) {
      // Modulo 2^32, in which what is too large on the way comes out right.
      const uint32_t total = uint32_t(P::total(sum[m])) - uint32_t(P::total(of_zeros));
      T value = T(int32_t(total)) * (a.scale ? x_scale[m] * a.scale[output] : x_scale[m]);
      if (a.bias) value = value + a.bias[output];
      a.y[m][output] = value;
    }
  }
}

template <class T, int kRows = kFewDotRows>
void linear_dot_few_rows(const Linear<T, Int8Dot>& a, const uint32_t* const* x, const T* x_scale, int64_t begin,
                         int64_t end) {
  if constexpr (kRows > 1) {
    if (a.rows < kRows) return linear_dot_few_rows<T, kRows - 1>(a, x, x_scale, begin, end);
  }
  linear_dot_few<T, kRows>(a, x, x_scale, begin, end);
}

// Of values of T: rounded rows with their scales, and a packed panel a thread.
template <class T>
int64_t linear_dot_scratch_size(const ThreadPool& pool, int64_t rows, int64_t in_features) {
  const int64_t operands = ceil_div(operand_count<T, Int8Dot>(in_features) * int64_t(sizeof(uint32_t)), sizeof(T));
  const int64_t panel = ceil_div(dot_packed_size<T>(LinearTile<T>::kColumns, in_features), sizeof(T));
  return rows * (operands + 1) + pool.threads * panel;
}

// As linear: panels are packed into the cache by the thread that uses them, where there are rows enough.
template <class T>
void linear_dot(const ThreadPool& pool, const Linear<T, Int8Dot>& a) {
  using P = Product<T, Int8Dot>;
  constexpr int kColumns = LinearTile<T>::kColumns, kRows = LinearTile<T>::kRows;
  constexpr int64_t kAtOnce = kRows * 8;
  const int64_t groups = operand_count<T, Int8Dot>(a.in_features);
  const int64_t row_size = ceil_div(groups * int64_t(sizeof(uint32_t)), sizeof(T));
  const int64_t panel_size = ceil_div(dot_packed_size<T>(kColumns, a.in_features), sizeof(T));
  T* const x_scale = a.scratch;
  T* const operands = x_scale + a.rows;
  T* const panels_packed = operands + a.rows * row_size;
  const auto row_operands = [=](int64_t row) { return reinterpret_cast<uint32_t*>(operands + row * row_size); };
  parallel_for(pool, a.rows,
               [=](int64_t row) { x_scale[row] = round_row(a.x[row], a.in_features, row_operands(row)); });
  const int64_t panels = ceil_div(a.out_features, kColumns), workers = pool.threads;
  if (a.rows > 0 && a.rows <= kFewDotRows) {
    parallel_for(pool, workers, [=](int64_t worker) {
      const uint32_t* inputs[kFewDotRows];
      for (int64_t m = 0; m < a.rows; ++m) inputs[m] = row_operands(m);
      linear_dot_few_rows<T>(a, inputs, x_scale, a.out_features * worker / workers,
                             a.out_features * (worker + 1) / workers);
    });
    return;
  }
  const int64_t cuts = panels < 4 * workers && a.rows >= 8 * kRows * workers ? workers : 1;
  const int64_t chunk = ceil_div(ceil_div(a.rows, cuts), kRows) * kRows;
  parallel_for(pool, workers, [=](int64_t worker) {
    Int8Dot* packed = reinterpret_cast<Int8Dot*>(panels_packed + worker * panel_size);
    const uint32_t* inputs[kAtOnce];
    T* outputs[kAtOnce];
    for (int64_t task = worker; task < panels * cuts; task += workers) {
      const int64_t column = task / cuts * kColumns, begin = task % cuts * chunk;
      const int64_t end = begin + chunk < a.rows ? begin + chunk : a.rows;
      const int columns = int(a.out_features - column < kColumns ? a.out_features - column : kColumns);
      if (begin >= end) continue;
      interleave<T, kColumns>(a.weight + column * a.in_features, a.in_features, columns, a.in_features,
                              packed + kColumns * P::kHead, kColumns * P::kDepth);
      set_heads<T>(LinearTile<T>::kVecs, groups, packed);
      for (int64_t row = begin; row < end; row += kAtOnce) {
        const int64_t count = end - row < kAtOnce ? end - row : kAtOnce;
        for (int64_t m = 0; m < count; ++m) inputs[m] = row_operands(row + m), outputs[m] = a.y[row + m] + column;
        linear_dot_panel<T>(inputs, x_scale + row, count, packed, groups, a.scale ? a.scale + column : nullptr,
                            a.bias ? a.bias + column : nullptr, columns, outputs);
      }
    }
  });
}

}  // namespace
}  // namespace asrkern::cpu
