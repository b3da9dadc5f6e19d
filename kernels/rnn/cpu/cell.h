// One step of a recurrent cell, given the products of its weights with input and state; and back.
//
// Rows are computed as the layers of gru.h and lstm.h compute theirs.
#pragma once

#include "kernels/rnn/cpu/gru.h"
#include "kernels/rnn/cpu/lstm.h"

namespace asrkern::cpu {
namespace {

// pass: gates_x, h0, h_n, reserve and what the cell has beside them; a row is a frame. gates_h: [rows, G·hidden_size]
// W_hh h0.
template <class Cell, class T = typename Cell::Value>
void cell_forward(const ThreadPool& pool, const typename Cell::Forward& pass, const T* gates_h, int64_t rows) {
  using V = Vec<T>;
  const int64_t size = pass.hidden_size;
  parallel_for(pool, rows, [=, &pass](int64_t row) {
    const T* x = pass.gates_x + row * Cell::kGates * size;
    const T* products = gates_h + row * Cell::kGates * size;
    for (int64_t unit = 0; unit < size; unit += V::kWidth) {
      const int count = int(size - unit < V::kWidth ? size - unit : V::kWidth);
      V gates[Cell::kGates];
      for (int gate = 0; gate < Cell::kGates; ++gate) gates[gate] = V::load(products + gate * size + unit, count);
      Cell::forward(pass, row, row, x + unit, unit, count, gates, V::load(pass.h0 + row * size + unit, count))
          .store(pass.h_n + row * size + unit, count);
    }
  });
}

// pass: h0, grad_outputs, reserve, grad_h, grad_gates, grad_last_x and what the cell has beside them; a row is a frame.
template <class Cell>
void cell_backward(const ThreadPool& pool, const typename Cell::Backward& pass, int64_t rows) {
  parallel_for(pool, rows, [=, &pass](int64_t row) {
    Cell::backward(pass, row, row, row, -1, pass.h0 + row * pass.hidden_size, 0, pass.hidden_size);
  });
}

}  // namespace
}  // namespace asrkern::cpu
