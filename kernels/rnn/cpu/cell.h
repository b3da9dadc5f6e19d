// One step of a recurrent cell, given the products of its weights with input and state, or over packed weights; and
// back.
//
// Rows are computed as the layers of gru.h and lstm.h compute theirs.
#pragma once

#include "kernels/rnn/cpu/dense.h"
#include "kernels/rnn/cpu/gru.h"
#include "kernels/rnn/cpu/lstm.h"

namespace asrkern::cpu {

// What a step over packed weights has beside its pass.
template <class T, class W>
struct CellStep {
  Dense<T, W> input;  // W_ih, in gates, with every bias that is a plain sum
  const T* x;         // [rows, input.in_features]
  T* gates_x;         // [rows, G·hidden_size] scratch
  int64_t rows;
  const int64_t* frames;  // [rows] 0, 1, 2, …
};

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

// pass: weight_packed (gates_pack of W_hh), scale, h0, h ([rows, hidden_size], the states after the step), outputs (the
// rows of h) and what the cell has beside them. Each member takes units of its own through all of the step.
template <class Cell, class T = typename Cell::Value, class W = typename Cell::Weight>
void cell_step(const ThreadPool& pool, const typename Cell::Forward& pass, const CellStep<T, W>& step) {
  constexpr int kWidth = Vec<T>::kWidth;
  const int64_t size = pass.hidden_size, members = pool.threads;
  parallel_for(pool, members, [=, &pass, &step](int64_t member) {
    const Share share(size, kWidth, int(member), int(members));
    if (share.begin >= share.end) return;
    dense<T, W, Cell::kGates>(step.input, {step.x, step.input.in_features}, {step.gates_x, Cell::kGates * size}, false,
                              step.rows, share.begin, share.end);
    recurrent_step<Cell>(pass, RecurrentStep<Cell>{step.frames, step.gates_x, pass.h0, pass.h, pass.h0, nullptr},
                         step.rows, share.begin, share.end, false);
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
