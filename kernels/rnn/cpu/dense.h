// A fully connected layer over packed weights, for few rows: bound by the bytes of its weights, which may be bfloat16
// or int8. Its outputs may come in groups ("gates"): of each unit one in every group, beside each other in memory.
//
// Every output is summed by linear.h's blocks in every tile, then times its scale, plus its bias.
#pragma once

#include "kernels/rnn/cpu/recurrent.h"

namespace asrkern::cpu {

template <class T, class W>
struct Dense {
  const W* packed;  // gates_pack of a weight [gates·units, in_features]
  const T* scale;   // [gates·units] or null
  const T* bias;    // [gates·units] or null
  int64_t units, in_features;
};

namespace {

// Rows `stride` apart.
template <class T>
struct DenseRows {
  T* first;
  int64_t stride;

  T* at(int64_t row) const { return first + row * stride; }
};

template <class T, class W, int kGates, int kRows, int kBlocks>
void dense_tile(const Dense<T, W>& a, const DenseRows<const T>& x, const DenseRows<T>& y, bool tanh_of, int64_t row,
                int64_t unit) {
  using V = Vec<T>;
  constexpr int kWidth = V::kWidth;
  const T* inputs[kRows];
  for (int m = 0; m < kRows; ++m) inputs[m] = x.at(row + m);
  V acc[kRows][kBlocks][kGates];
  recurrent_sums<T, W>(inputs, a.packed + unit * kGates * a.in_features, a.in_features, acc);
  for (int b = 0; b < kBlocks; ++b) {
    const int64_t first = unit + b * kWidth;
    const int count = int(a.units - first < kWidth ? a.units - first : kWidth);
    for (int gate = 0; gate < kGates; ++gate) {
      const int64_t output = gate * a.units + first;
      for (int m = 0; m < kRows; ++m) {
        V value = acc[m][b][gate];
        if (a.scale) value = value * V::load(a.scale + output, count);
        if (a.bias) value = value + V::load(a.bias + output, count);
        if (tanh_of) value = tanh(value);
        value.store(y.at(row + m) + output, count);
      }
    }
  }
}

// Rows [row, rows): full tiles, then smaller ones.
template <class T, class W, int kGates, int kBlocks, int kRows>
void dense_rows(const Dense<T, W>& a, const DenseRows<const T>& x, const DenseRows<T>& y, bool tanh_of, int64_t row,
                int64_t rows, int64_t unit) {
  for (; row + kRows <= rows; row += kRows) dense_tile<T, W, kGates, kRows, kBlocks>(a, x, y, tanh_of, row, unit);
  if constexpr (kRows > 1) {
    if (row < rows) dense_rows<T, W, kGates, kBlocks, kRows / 2>(a, x, y, tanh_of, row, rows, unit);
  }
}

// Units [begin, end) of rows [0, rows); begin is a multiple of the vector width.
template <class T, class W, int kGates,
          int kRows = (RecurrentTile<kGates>::kRows < 8 ? RecurrentTile<kGates>::kRows : 8)>
void dense(const Dense<T, W>& a, const DenseRows<const T>& x, const DenseRows<T>& y, bool tanh_of, int64_t rows,
           int64_t begin, int64_t end) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return dense<T, W, kGates, kRows / 2>(a, x, y, tanh_of, rows, begin, end);
  }
  constexpr int kWidth = Vec<T>::kWidth, kBlocks = RecurrentTile<kGates>::blocks(kRows);
  int64_t unit = begin;
  for (; unit + (kBlocks - 1) * kWidth < end; unit += kBlocks * kWidth)
    dense_rows<T, W, kGates, kBlocks, kRows>(a, x, y, tanh_of, 0, rows, unit);
  for (; unit < end; unit += kWidth) dense_rows<T, W, kGates, 1, kRows>(a, x, y, tanh_of, 0, rows, unit);
}

// A member's share of `count` things in blocks of `block`.
struct Share {
  int64_t begin, end;

  Share(int64_t count, int64_t block, int member, int members) {
    const int64_t blocks = ceil_div(count, block);
    begin = blocks * member / members * block;
    end = blocks * (member + 1) / members * block;
    if (end > count) end = count;
    if (begin > end) begin = end;
  }
};

}  // namespace
}  // namespace asrkern::cpu
