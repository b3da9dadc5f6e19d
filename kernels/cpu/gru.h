// Gated recurrent unit over a packed batch, one or two directions, forward and backward.
//
// torch.nn.GRU's formula:   r = σ(x_r + h_r)   z = σ(x_z + h_z)   n = tanh(x_n + r ∘ h_n)   h' = (1 − z) ∘ n + z ∘ h
// with x_· = W_i· x + b_i· and h_· = W_h· h + b_h·.
//
// Rows are sorted by length, longest first, and run from their own first step (their last frame for the reverse
// direction), so that the rows still running at a step are always the first `active[step]`: finished rows cost nothing.
// Frame t of row i is frame number `offsets[t] + i`, the order of a PackedSequence.
//
// Every h_· is one chain fma(h[k], w[k], acc) over ascending k in every tile: see linear.h.
#pragma once

#include "kernels/cpu/linear.h"

namespace asrkern::cpu {

struct GruBatch {
  int64_t rows;            // sequences, zero-length ones included
  int64_t steps;           // the longest length
  int64_t frames;          // Σ lengths
  const int64_t* active;   // [steps] rows longer than each step
  const int64_t* offsets;  // [steps] frames before each step: Σ active[:t]
  const int64_t* lengths;  // [rows] descending
};

// One direction. `frame` runs over packed order.
template <class T>
struct GruForward {
  bool reverse;
  int64_t hidden_size;
  const T* gates_x;        // [frames, 3·hidden_size] W_ih x + b_ih, with the r and z parts of b_hh already in
  const T* weight_packed;  // gru_pack(W_hh)
  const T* bias_n;         // [hidden_size] the n part of b_hh, or null
  const T* h0;             // [rows, hidden_size]
  T* h;                    // [2, rows, hidden_size] scratch: the states before and after a step
  T* const* outputs;       // [frames] where each frame's hidden_size outputs go
  T* h_n;                  // [rows, hidden_size]
  T* reserve;              // [frames, 4·hidden_size] r, z, n, h_n for the backward pass, or null
};

template <class T>
struct GruBackward {
  bool reverse;
  int64_t hidden_size;
  const T* weight_packed;        // linear_pack of W_hh transposed: in_features = 3·hidden_size
  const T* h0;                   // [rows, hidden_size]
  const T* const* outputs;       // [frames] as in forward
  const T* const* grad_outputs;  // [frames]
  const T* grad_h_n;             // [rows, hidden_size]
  const T* reserve;              // [frames, 4·hidden_size]
  T* grad_gates_x;               // [frames, grad_gates_x_stride] 3·hidden_size values a frame
  int64_t grad_gates_x_stride;
  T* grad_gates_h;  // [frames, 3·hidden_size]
  T* h_previous;    // [frames, hidden_size] the state that entered each frame, for the deferred dW_hh
  T* grad_h0;       // [rows, hidden_size]; carries dh from step to step
};

namespace {

// kRows × kBlocks × 3 gates of accumulators.
template <class T>
struct GruTile {
#if defined(__AVX512F__)
  static constexpr int kRows = 8;
#else
  static constexpr int kRows = 4;
#endif
};

template <class T>
int64_t gru_packed_size(int64_t hidden_size) {
  constexpr int kWidth = Vec<T>::kWidth;
  return ceil_div(hidden_size, kWidth) * kWidth * 3 * hidden_size;
}

// weight: [3·hidden_size, hidden_size] → packed: [block of kWidth units][k][gate][unit], zero beyond hidden_size.
template <class T>
void gru_pack(const ThreadPool& pool, const T* weight, int64_t hidden_size, T* packed) {
  constexpr int kWidth = Vec<T>::kWidth;
  parallel_for(pool, ceil_div(hidden_size, kWidth), [=](int64_t block) {
    const int64_t first = block * kWidth;
    T* out = packed + first * 3 * hidden_size;
    constexpr int64_t kBlock = 64;
    for (int64_t k0 = 0; k0 < hidden_size; k0 += kBlock) {
      const int64_t k1 = k0 + kBlock < hidden_size ? k0 + kBlock : hidden_size;
      for (int gate = 0; gate < 3; ++gate)
        for (int unit = 0; unit < kWidth; ++unit) {
          const T* in = weight + (gate * hidden_size + first + unit) * hidden_size;
          for (int64_t k = k0; k < k1; ++k)
            out[(k * 3 + gate) * kWidth + unit] = first + unit < hidden_size ? in[k] : T(0);
        }
    }
  });
}

// The frame that a row reads at a step.
inline int64_t gru_frame(const GruBatch& batch, bool reverse, int64_t step, int64_t row) {
  return batch.offsets[reverse ? batch.lengths[row] - 1 - step : step] + row;
}

// kBlocks blocks of units from `unit`, for rows [row, row + kRows).
template <class T, int kRows, int kBlocks>
void gru_step_tile(const GruForward<T>& a, const int64_t* frames, int64_t row, int64_t unit, const T* h, T* h_next) {
  using V = Vec<T>;
  constexpr int kWidth = V::kWidth;
  const int64_t size = a.hidden_size, block_size = kWidth * 3 * size;
  const T* weight = a.weight_packed + unit * 3 * size;
  V acc[kRows][kBlocks][3];
  for (int m = 0; m < kRows; ++m)
    for (int b = 0; b < kBlocks; ++b)
      for (int gate = 0; gate < 3; ++gate) acc[m][b][gate] = V::set1(0);
  const T* states[kRows];
  for (int m = 0; m < kRows; ++m) states[m] = h + (row + m) * size;
  for (int64_t k = 0; k < size; ++k, weight += 3 * kWidth) {
    V value[kRows];
    for (int m = 0; m < kRows; ++m) value[m] = V::set1(states[m][k]);
    for (int b = 0; b < kBlocks; ++b)
      for (int gate = 0; gate < 3; ++gate) {
        const V w = V::load(weight + b * block_size + gate * kWidth);
        for (int m = 0; m < kRows; ++m) acc[m][b][gate] = fma(value[m], w, acc[m][b][gate]);
      }
  }
  for (int b = 0; b < kBlocks; ++b) {
    const int64_t first = unit + b * kWidth;
    const int count = int(size - first < kWidth ? size - first : kWidth);
    const V bias = a.bias_n ? V::load(a.bias_n + first, count) : V::set1(0);
    for (int m = 0; m < kRows; ++m) {
      const int64_t frame = frames[row + m];
      const T* x = a.gates_x + frame * 3 * size + first;
      const V r = sigmoid(V::load(x, count) + acc[m][b][0]);
      const V z = sigmoid(V::load(x + size, count) + acc[m][b][1]);
      const V h_n = acc[m][b][2] + bias;
      const V n = tanh(fma(r, h_n, V::load(x + 2 * size, count)));
      const V result = fma(z, V::load(states[m] + first, count) - n, n);
      result.store(h_next + (row + m) * size + first, count);
      result.store(a.outputs[frame] + first, count);
      if (a.reserve) {
        T* saved = a.reserve + frame * 4 * size + first;
        r.store(saved, count);
        z.store(saved + size, count);
        n.store(saved + 2 * size, count);
        h_n.store(saved + 3 * size, count);
      }
    }
  }
}

// Units [begin, end) of all rows of a step; begin is a multiple of the vector width.
template <class T, int kRows = GruTile<T>::kRows>
void gru_step(const GruForward<T>& a, const int64_t* frames, int64_t row, int64_t rows, int64_t begin, int64_t end,
              const T* h, T* h_next) {
  constexpr int kWidth = Vec<T>::kWidth;
  if (rows >= kRows) {
    // With few rows, several blocks at once keep enough independent chains in flight.
    constexpr int kBlocks = kRows == 1 ? 4 : kRows == 2 ? 2 : 1;
    const int64_t tiles = rows / kRows * kRows;
    int64_t unit = begin;
    for (; unit + (kBlocks - 1) * kWidth < end; unit += kBlocks * kWidth)
      for (int64_t m = 0; m < tiles; m += kRows) gru_step_tile<T, kRows, kBlocks>(a, frames, row + m, unit, h, h_next);
    for (; unit < end; unit += kWidth)
      for (int64_t m = 0; m < tiles; m += kRows) gru_step_tile<T, kRows, 1>(a, frames, row + m, unit, h, h_next);
    row += tiles;
    rows -= tiles;
  }
  if constexpr (kRows > 1) {
    if (rows > 0) gru_step<T, kRows - 1>(a, frames, row, rows, begin, end, h, h_next);
  }
}

template <class T>
void copy(const T* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// One member's share of one direction; `frames` is the member's scratch, [rows].
template <class T>
void gru_forward_member(const GruBatch& batch, const GruForward<T>& a, int member, int members, Barrier& barrier,
                        int64_t* frames) {
  constexpr int kWidth = Vec<T>::kWidth;
  const int64_t size = a.hidden_size, blocks = ceil_div(size, kWidth);
  const int64_t begin = blocks * member / members * kWidth;
  const int64_t last = blocks * (member + 1) / members * kWidth, end = last < size ? last : size;
  if (begin < end)
    for (int64_t i = 0; i < batch.rows; ++i) {
      copy(a.h0 + i * size + begin, end - begin, a.h + i * size + begin);
      if (batch.lengths[i] == 0) copy(a.h0 + i * size + begin, end - begin, a.h_n + i * size + begin);
    }
  barrier.wait(members);
  for (int64_t step = 0; step < batch.steps; ++step) {
    const T* h = a.h + step % 2 * batch.rows * size;
    T* h_next = a.h + (step + 1) % 2 * batch.rows * size;
    for (int64_t i = 0; i < batch.active[step]; ++i) frames[i] = gru_frame(batch, a.reverse, step, i);
    if (begin < end) {
      gru_step<T>(a, frames, 0, batch.active[step], begin, end, h, h_next);
      const int64_t running = step + 1 < batch.steps ? batch.active[step + 1] : 0;
      for (int64_t i = running; i < batch.active[step]; ++i)
        copy(h_next + i * size + begin, end - begin, a.h_n + i * size + begin);
    }
    barrier.wait(members);
  }
}

// The gradient of one step's gates for rows [0, rows), units [begin, end); leaves z ∘ dh in grad_h0.
template <class T>
void gru_gate_gradients(const GruBatch& batch, const GruBackward<T>& a, int64_t step, int64_t begin, int64_t end) {
  using V = Vec<T>;
  const int64_t size = a.hidden_size;
  const V one = V::set1(1);
  for (int64_t i = 0; i < batch.active[step]; ++i) {
    const int64_t frame = gru_frame(batch, a.reverse, step, i);
    const T* previous = step == 0 ? a.h0 + i * size : a.outputs[gru_frame(batch, a.reverse, step - 1, i)];
    const T* carried = (step == batch.lengths[i] - 1 ? a.grad_h_n : a.grad_h0) + i * size;
    const T* saved = a.reserve + frame * 4 * size;
    T* gates_x = a.grad_gates_x + frame * a.grad_gates_x_stride;
    T* gates_h = a.grad_gates_h + frame * 3 * size;
    for (int64_t j = begin; j < end; j += V::kWidth) {
      const int count = int(end - j < V::kWidth ? end - j : V::kWidth);
      const V dh = V::load(a.grad_outputs[frame] + j, count) + V::load(carried + j, count);
      const V r = V::load(saved + j, count), z = V::load(saved + size + j, count);
      const V n = V::load(saved + 2 * size + j, count), h_n = V::load(saved + 3 * size + j, count);
      const V h = V::load(previous + j, count);
      const V dn = dh * (one - z) * (one - n * n);
      const V dz = dh * (h - n) * z * (one - z);
      const V dr = dn * h_n * r * (one - r);
      dr.store(gates_x + j, count);
      dz.store(gates_x + size + j, count);
      dn.store(gates_x + 2 * size + j, count);
      dr.store(gates_h + j, count);
      dz.store(gates_h + size + j, count);
      (dn * r).store(gates_h + 2 * size + j, count);
      h.store(a.h_previous + frame * size + j, count);
      (dh * z).store(a.grad_h0 + i * size + j, count);
    }
  }
}

// `gates` and `states` are the member's scratch, [rows] pointers each.
template <class T>
void gru_backward_member(const GruBatch& batch, const GruBackward<T>& a, int member, int members, Barrier& barrier,
                         const T** gates, T** states) {
  constexpr int kColumns = LinearTile<T>::kColumns;
  const int64_t size = a.hidden_size, panels = ceil_div(size, kColumns);
  const int64_t first_panel = panels * member / members, last_panel = panels * (member + 1) / members;
  const int64_t begin = first_panel * kColumns;
  const int64_t end = last_panel * kColumns < size ? last_panel * kColumns : size;
  if (begin < end)
    for (int64_t i = 0; i < batch.rows; ++i)
      if (batch.lengths[i] == 0) copy(a.grad_h_n + i * size + begin, end - begin, a.grad_h0 + i * size + begin);
  for (int64_t step = batch.steps - 1; step >= 0; --step) {
    if (begin < end) gru_gate_gradients(batch, a, step, begin, end);
    // dh needs every unit's gate gradients; the next step's gate gradients only this member's own dh.
    barrier.wait(members);
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      const int64_t column = panel * kColumns;
      for (int64_t i = 0; i < batch.active[step]; ++i) {
        gates[i] = a.grad_gates_h + gru_frame(batch, a.reverse, step, i) * 3 * size;
        states[i] = a.grad_h0 + i * size + column;
      }
      linear_panel<T>(gates, batch.active[step], a.weight_packed + column * 3 * size, 3 * size, nullptr, true,
                      int(size - column < kColumns ? size - column : kColumns), states);
    }
  }
}

// f(direction, member, members, barrier): each direction gets its own share of the threads, or, where there is only
// one thread, its turn.
template <class F>
void for_each_direction(const ThreadPool& pool, int directions, const F& f) {
  Barrier barriers[2];
  run_team(pool, pool.threads > directions ? pool.threads : directions, [&](int member, int members) {
    if (members < directions) {
      for (int d = member; d < directions; d += members) f(d, 0, 1, barriers[d]);
    } else {
      const int d = member % directions;
      f(d, member / directions, (members - d + directions - 1) / directions, barriers[d]);
    }
  });
}

// scratch: [max(threads, directions), rows].
template <class T>
void gru_forward(const ThreadPool& pool, const GruBatch& batch, const GruForward<T>* directions, int count,
                 int64_t* scratch) {
  for_each_direction(pool, count, [&](int d, int member, int members, Barrier& barrier) {
    gru_forward_member(batch, directions[d], member, members, barrier, scratch + (member * count + d) * batch.rows);
  });
}

// gates, states: [max(threads, directions), rows].
template <class T>
void gru_backward(const ThreadPool& pool, const GruBatch& batch, const GruBackward<T>* directions, int count,
                  const T** gates, T** states) {
  for_each_direction(pool, count, [&](int d, int member, int members, Barrier& barrier) {
    const int64_t mine = (member * count + d) * batch.rows;
    gru_backward_member(batch, directions[d], member, members, barrier, gates + mine, states + mine);
  });
}

}  // namespace
}  // namespace asrkern::cpu
