// What the recurrent layers share: a packed batch, one or two directions, the walk through its steps forward and
// backward. gru.h and lstm.h give the cells.
//
// Rows are sorted by length, longest first, and run from their own first step (their last frame for the reverse
// direction), so that the rows still running at a step are always the first `active[step]`: finished rows cost nothing.
// Frame t of row i is frame number `offsets[t] + i`, the order of a PackedSequence.
//
// Every element of W_h h is summed by linear.h's blocks in every tile. With weights that are Int8Dot it is a sum of
// integers, of a state that is rounded to eight bits at each step: see int8_dot.h.
#pragma once

#include "kernels/linear/cpu/linear_dot.h"

namespace asrkern::cpu {

struct RecurrentBatch {
  int64_t rows;            // sequences, zero-length ones included
  int64_t steps;           // the longest length
  int64_t frames;          // Σ lengths
  const int64_t* active;   // [steps] rows longer than each step
  const int64_t* offsets;  // [steps] frames before each step: Σ active[:t]
  const int64_t* lengths;  // [rows] descending
};

// One direction of a cell with G gates that saves S values a unit. `frame` runs over packed order.
template <class T, class W>
struct RecurrentForward {
  bool reverse;
  int64_t hidden_size;
  const T* gates_x;        // [rows of the steps of a call, G·hidden_size] W_ih x, with every bias that is a plain sum
                           // already in: by step, then by row
  const W* weight_packed;  // recurrent_pack(W_hh)
  const T* h0;             // [rows, hidden_size]
  T* h;                    // [2, rows, hidden_size] scratch: the states before and after a step
  T* const* outputs;       // [frames] where each frame's hidden_size outputs go
  T* h_n;                  // [rows, hidden_size]; rows of no length are left as they are
  T* reserve;              // [frames, S·hidden_size] for the backward pass, or null
  const T* scale;          // [G·hidden_size] what each row of W_hh is to be multiplied by, or null
};

// In the steps of a call, rows are in the order of `gates_x`: by step, then by row.
template <class T>
struct RecurrentBackward {
  bool reverse;
  int64_t hidden_size;
  const T* weight_packed;        // linear_pack of W_hh transposed: in_features = G·hidden_size
  const T* h0;                   // [rows, hidden_size]
  const T* const* outputs;       // [frames] as in forward
  const T* const* grad_outputs;  // [frames]
  const T* reserve;              // [frames, S·hidden_size]
  T* grad_h;                     // [rows, hidden_size] that of h_n on entry, of h0 on return; carries dh between
  T* h_previous;   // [rows of the steps, hidden_size] the states that entered them, for the deferred dW_hh
  T* grad_gates;   // [rows of the steps, G·hidden_size] the gradient of W_hh h, and of gates_x
  T* grad_last_x;  // [rows of the steps, hidden_size] gates_x's of the last gate where it differs from the gradient of
                   // W_hh h
};

namespace {

// A Cell names the types Value, Weight, Forward and Backward, its kGates, how many values it saves a unit (kSaved) and
// whether it has a grad_last_x (kHasGradLastX), and has
//   forward(pass, row, frame, gates_x, unit, count, gates_h, h) → the next h of `count` units from `unit`, gates_x
//   being
//     the row's from `unit` on;
//   backward(pass, row, place, frame, frame_before, h, begin, end): the gradients of the gates of units [begin, end),
//     from grad_h; in its place it leaves what reaches the state before by another way than W_hh. `place` is the row's
//     among those of the steps; `frame_before` is negative at a row's first step, whose h is h0.

template <int kGates>
struct RecurrentTile {
#if defined(__AVX512F__)
  static constexpr int kRows = 24 / kGates;
#else
  static constexpr int kRows = 12 / kGates;
#endif
  // With few rows, several blocks of units at once keep enough independent chains in flight.
  static constexpr int blocks(int rows) { return rows * kGates < 12 ? 12 / (rows * kGates) : 1; }
};

// Packed weights of one unit's gates.
template <class T, class W>
int64_t unit_packed_size(int64_t gates, int64_t in_features) {
  using P = Product<T, W>;
  return gates * (P::kHead + P::kDepth * operand_count<T, W>(in_features));
}

template <class T, class W = T>
int64_t gates_packed_size(int64_t units, int64_t gates, int64_t in_features) {
  constexpr int kWidth = Vec<T>::kWidth;
  return ceil_div(units, kWidth) * kWidth * unit_packed_size<T, W>(gates, in_features);
}

// weight: [gates·units, in_features] → packed: [block of kWidth units][k][gate][unit], zero beyond units; both of W, in
// blocks of T's vectors. Of Int8Dot a block is [gate][unit] heads, then [group of k][gate][unit][k of the group].
template <class T, class W>
void gates_pack(const ThreadPool& pool, const W* weight, int64_t units, int64_t gates, int64_t in_features, W* packed) {
  constexpr int kWidth = Vec<T>::kWidth;
  parallel_for(pool, ceil_div(units, kWidth), [=](int64_t block) {
    using P = Product<T, W>;
    const int64_t first = block * kWidth;
    W* const heads = packed + first * unit_packed_size<T, W>(gates, in_features);
    W* const out = heads + gates * kWidth * P::kHead;
    const int count = int(units - first < kWidth ? units - first : kWidth);
    for (int64_t gate = 0; gate < gates; ++gate) {
      const W* from = weight + (gate * units + first) * in_features;
      if constexpr (P::kRounds)
        interleave<T, kWidth>(from, in_features, count, in_features, out + gate * kWidth * P::kDepth,
                              gates * kWidth * P::kDepth);
      else
        transpose(from, in_features, count, kWidth, in_features, out + gate * kWidth, gates * kWidth);
    }
    if constexpr (P::kRounds) set_heads<T>(int(gates), operand_count<T, W>(in_features), heads);
  });
}

// The same of W_hh, which is square.
template <class T, class W, int kGates>
int64_t recurrent_packed_size(int64_t hidden_size) {
  return gates_packed_size<T, W>(hidden_size, kGates, hidden_size);
}
template <class T, class W, int kGates>
void recurrent_pack(const ThreadPool& pool, const W* weight, int64_t hidden_size, W* packed) {
  gates_pack<T>(pool, weight, hidden_size, kGates, hidden_size, packed);
}

template <class T>
void copy(const T* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// The frame that a row reads at a step.
inline int64_t recurrent_frame(const RecurrentBatch& batch, bool reverse, int64_t step, int64_t row) {
  return batch.offsets[reverse ? batch.lengths[row] - 1 - step : step] + row;
}

// acc[m][b][g] += Σ_k rows[m][k] · weight[b][k][g] over k in [first, last).
template <class T, class W, int kRows, int kBlocks, int kGates>
inline void recurrent_block(const typename Product<T, W>::Operand* const (&rows)[kRows], const W* weight,
                            int64_t block_size, int64_t first, int64_t last,
                            typename Product<T, W>::Sum (&acc)[kRows][kBlocks][kGates]) {
  using P = Product<T, W>;
  constexpr int kGroup = Vec<T>::kWidth * P::kDepth;
  weight += first * kGates * kGroup;
  for (int64_t k = first; k < last; ++k, weight += kGates * kGroup) {
    // The fewer operands stay in registers, of the others there is one at a time: all of both would not fit.
    if constexpr (kRows < kBlocks * kGates) {
      decltype(P::broadcast(rows[0][k])) value[kRows];
      for (int m = 0; m < kRows; ++m) value[m] = P::broadcast(rows[m][k]);
      for (int b = 0; b < kBlocks; ++b)
        for (int gate = 0; gate < kGates; ++gate) {
          const auto w = P::load(weight + b * block_size + gate * kGroup);
          for (int m = 0; m < kRows; ++m) acc[m][b][gate] = P::add(value[m], w, acc[m][b][gate]);
        }
    } else {
      decltype(P::load(weight)) w[kBlocks][kGates];
      for (int b = 0; b < kBlocks; ++b)
        for (int gate = 0; gate < kGates; ++gate) w[b][gate] = P::load(weight + b * block_size + gate * kGroup);
      for (int m = 0; m < kRows; ++m) {
        const auto value = P::broadcast(rows[m][k]);
        for (int b = 0; b < kBlocks; ++b)
          for (int gate = 0; gate < kGates; ++gate) acc[m][b][gate] = P::add(value, w[b][gate], acc[m][b][gate]);
      }
    }
  }
}

// acc[m][b][g] = Σ_k rows[m][k] · weight[b][k][g], of floats by linear.h's blocks. Sums of integers are exact.
template <class T, class W, int kRows, int kBlocks, int kGates>
inline void recurrent_sums(const typename Product<T, W>::Operand* const (&rows)[kRows], const W* weight,
                           int64_t in_features, typename Product<T, W>::Sum (&acc)[kRows][kBlocks][kGates]) {
  using P = Product<T, W>;
  constexpr int kHead = Vec<T>::kWidth * P::kHead;
  const int64_t block_size = Vec<T>::kWidth * unit_packed_size<T, W>(kGates, in_features);
  const int64_t count = operand_count<T, W>(in_features), step = P::kRounds ? count : kLinearBlock;
  typename P::Sum total[kRows][kBlocks][kGates];
  int64_t first = 0;
  // Once where there are no inputs, too.
  do {
    const int64_t left = count - first, depth = left < step ? left : step;
    for (int m = 0; m < kRows; ++m)
      for (int b = 0; b < kBlocks; ++b)
        for (int gate = 0; gate < kGates; ++gate) acc[m][b][gate] = P::start(weight + b * block_size + gate * kHead);
    recurrent_block<T, W>(rows, weight + kGates * kHead, block_size, first, first + depth, acc);
    if constexpr (!P::kRounds) {
      if (first > 0)
        for (int m = 0; m < kRows; ++m)
          for (int b = 0; b < kBlocks; ++b)
            for (int gate = 0; gate < kGates; ++gate) acc[m][b][gate] = total[m][b][gate] + acc[m][b][gate];
      if (depth < left)
        for (int m = 0; m < kRows; ++m)
          for (int b = 0; b < kBlocks; ++b)
            for (int gate = 0; gate < kGates; ++gate) total[m][b][gate] = acc[m][b][gate];
    }
    first += depth;
  } while (first < count);
}

// One direction's step: `gates_x` is that of its first row.
template <class Cell>
struct RecurrentStep {
  using T = typename Cell::Value;
  using P = Product<T, typename Cell::Weight>;

  const int64_t* frames;  // [rows]
  const T* gates_x;
  const T* h;
  T* h_next;
  const typename P::Operand* operands;  // [rows, operand_count] of h: itself, or rounded
  const T* operand_scale;               // [rows] what rounded ones are to be multiplied by
};

// kBlocks blocks of units from `unit`, for rows [row, row + kRows).
template <class Cell, int kRows, int kBlocks>
void recurrent_tile(const typename Cell::Forward& a, const RecurrentStep<Cell>& step, int64_t row, int64_t unit) {
  using T = typename Cell::Value;
  using W = typename Cell::Weight;
  using V = Vec<T>;
  using P = Product<T, W>;
  constexpr int kWidth = V::kWidth, kGates = Cell::kGates;
  const int64_t size = a.hidden_size;
  const typename P::Operand* operands[kRows];
  for (int m = 0; m < kRows; ++m) operands[m] = step.operands + (row + m) * operand_count<T, W>(size);
  typename P::Sum acc[kRows][kBlocks][kGates];
  recurrent_sums<T, W>(operands, a.weight_packed + unit * unit_packed_size<T, W>(kGates, size), size, acc);
  for (int b = 0; b < kBlocks; ++b) {
    const int64_t first = unit + b * kWidth;
    const int count = int(size - first < kWidth ? size - first : kWidth);
    for (int m = 0; m < kRows; ++m) {
      V gates_h[kGates];
      for (int gate = 0; gate < kGates; ++gate) {
        gates_h[gate] = P::value(acc[m][b][gate]);
        const auto scaled = [&](V factor) {
          return a.scale ? factor * V::load(a.scale + gate * size + first, count) : factor;
        };
        if constexpr (P::kRounds)
          gates_h[gate] = gates_h[gate] * scaled(V::set1(step.operand_scale[row + m]));
        else
          gates_h[gate] = scaled(gates_h[gate]);
      }
      const int64_t frame = step.frames[row + m];
      const T* gates_x = step.gates_x + (row + m) * kGates * size + first;
      const V h = V::load(step.h + (row + m) * size + first, count);
      const V next = Cell::forward(a, row + m, frame, gates_x, first, count, gates_h, h);
      next.store(step.h_next + (row + m) * size + first, count);
      next.store(a.outputs[frame] + first, count);
    }
  }
}

// recurrent_tile for any number of rows: full tiles, then one tile of exactly what is left.
template <class Cell, int kBlocks, int kRows>
void recurrent_rows(const typename Cell::Forward& a, const RecurrentStep<Cell>& step, int64_t row, int64_t rows,
                    int64_t unit) {
  for (; row + kRows <= rows; row += kRows) recurrent_tile<Cell, kRows, kBlocks>(a, step, row, unit);
  if constexpr (kRows > 1) {
    if (row < rows) recurrent_rows<Cell, kBlocks, kRows - 1>(a, step, row, rows, unit);
  }
}

// Units [begin, end) of rows [0, rows) of a step; begin is a multiple of the vector width. All rows pass by a block of
// weights while it is in the cache. A step that goes backwards begins with the weights that the one before ended with,
// which are the ones still in the cache.
template <class Cell, int kRows = RecurrentTile<Cell::kGates>::kRows>
void recurrent_step(const typename Cell::Forward& a, const RecurrentStep<Cell>& step, int64_t rows, int64_t begin,
                    int64_t end, bool backwards) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return recurrent_step<Cell, kRows - 1>(a, step, rows, begin, end, backwards);
  }
  constexpr int kWidth = Vec<typename Cell::Value>::kWidth, kBlocks = RecurrentTile<Cell::kGates>::blocks(kRows);
  const int64_t blocks = ceil_div(end - begin, kWidth), groups = blocks / kBlocks;
  const int64_t count = groups + blocks % kBlocks;  // whole groups of blocks, then the blocks left
  for (int64_t i = 0; i < count; ++i) {
    const int64_t item = backwards ? count - 1 - i : i;
    if (item < groups)
      recurrent_rows<Cell, kBlocks, kRows>(a, step, 0, rows, begin + item * kBlocks * kWidth);
    else
      recurrent_rows<Cell, 1, kRows>(a, step, 0, rows, begin + (groups * (kBlocks - 1) + item) * kWidth);
  }
}

// What a member needs of its own: a frame a row, and of states that are rounded the operands and the scale a row.
template <class Cell>
int64_t recurrent_scratch_size(int64_t rows, int64_t hidden_size) {
  using T = typename Cell::Value;
  using P = Product<T, typename Cell::Weight>;
  if constexpr (!P::kRounds) return rows;
  const int64_t operands = operand_count<T, typename Cell::Weight>(hidden_size) * int64_t(sizeof(typename P::Operand));
  return rows + ceil_div(rows * (operands + int64_t(sizeof(T))), sizeof(int64_t));
}

// One member's share of one direction in steps [first, last); `scratch`: [recurrent_scratch_size].
template <class Cell>
void recurrent_forward_member(const RecurrentBatch& batch, const typename Cell::Forward& a, int64_t first, int64_t last,
                              int member, int members, Barrier& barrier, int64_t* scratch) {
  using T = typename Cell::Value;
  using P = Product<T, typename Cell::Weight>;
  constexpr int kWidth = Vec<T>::kWidth;
  const int64_t size = a.hidden_size, blocks = ceil_div(size, kWidth);
  const int64_t begin = blocks * member / members * kWidth;
  const int64_t last_unit = blocks * (member + 1) / members * kWidth, end = last_unit < size ? last_unit : size;
  int64_t* const frames = scratch;
  T* const scales = reinterpret_cast<T*>(frames + batch.rows);
  typename P::Operand* const rounded = reinterpret_cast<typename P::Operand*>(scales + batch.rows);
  if (first == 0) {
    if (begin < end)
      for (int64_t i = 0; i < batch.rows; ++i) copy(a.h0 + i * size + begin, end - begin, a.h + i * size + begin);
    barrier.wait(members);
  }
  for (int64_t step = first; step < last; ++step) {
    T* h_next = a.h + (step + 1) % 2 * batch.rows * size;
    for (int64_t i = 0; i < batch.active[step]; ++i) frames[i] = recurrent_frame(batch, a.reverse, step, i);
    if (begin < end) {
      const T* gates_x = a.gates_x + (batch.offsets[step] - batch.offsets[first]) * Cell::kGates * size;
      const T* h = a.h + step % 2 * batch.rows * size;
      RecurrentStep<Cell> now{frames, gates_x, h, h_next, nullptr, scales};
      if constexpr (P::kRounds) {
        // Each member rounds all units: the largest of a row is among those of any.
        for (int64_t i = 0; i < batch.active[step]; ++i)
          scales[i] = round_row(h + i * size, size, rounded + i * operand_count<T, typename Cell::Weight>(size));
        now.operands = rounded;
      } else {
        now.operands = h;
      }
      recurrent_step<Cell>(a, now, batch.active[step], begin, end, step % 2 == 1);
      const int64_t running = step + 1 < batch.steps ? batch.active[step + 1] : 0;
      for (int64_t i = running; i < batch.active[step]; ++i)
        copy(h_next + i * size + begin, end - begin, a.h_n + i * size + begin);
    }
    barrier.wait(members);
  }
}

// Steps [first, last) from the last on; `gates` and `states` are the member's scratch, [rows] pointers each.
template <class Cell, class T = typename Cell::Value>
void recurrent_backward_member(const RecurrentBatch& batch, const typename Cell::Backward& a, int64_t first,
                               int64_t last, int member, int members, Barrier& barrier, const T** gates, T** states) {
  constexpr int kColumns = LinearTile<T>::kColumns;
  const int64_t size = a.hidden_size, in_features = Cell::kGates * size, panels = ceil_div(size, kColumns);
  const int64_t first_panel = panels * member / members, last_panel = panels * (member + 1) / members;
  const int64_t begin = first_panel * kColumns;
  const int64_t end = last_panel * kColumns < size ? last_panel * kColumns : size;
  for (int64_t step = last - 1; step >= first; --step) {
    const int64_t active = batch.active[step];
    for (int64_t i = 0; i < active; ++i) {
      const int64_t place = batch.offsets[step] - batch.offsets[first] + i;
      gates[i] = a.grad_gates + place * in_features;
      if (begin >= end) continue;
      const int64_t frame = recurrent_frame(batch, a.reverse, step, i);
      const int64_t frame_before = step == 0 ? -1 : recurrent_frame(batch, a.reverse, step - 1, i);
      const T* h = step == 0 ? a.h0 + i * size : a.outputs[frame_before];
      copy(h + begin, end - begin, a.h_previous + place * size + begin);
      Cell::backward(a, i, place, frame, frame_before, h, begin, end);
    }
    // dh needs every unit's gate gradients; the next step's gate gradients only this member's own dh.
    barrier.wait(members);
    for (int64_t turn = first_panel; turn < last_panel; ++turn) {
      // As in recurrent_step.
      const int64_t panel = step % 2 == 1 ? first_panel + last_panel - 1 - turn : turn;
      const int64_t column = panel * kColumns;
      for (int64_t i = 0; i < active; ++i) states[i] = a.grad_h + i * size + column;
      linear_panel<T>(gates, active, a.weight_packed + column * in_features, in_features, nullptr, nullptr, true,
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

// Steps [first, last), which continue those of the call before; scratch: [max(threads, directions),
// recurrent_scratch_size].
template <class Cell>
void recurrent_forward(const ThreadPool& pool, const RecurrentBatch& batch, const typename Cell::Forward* directions,
                       int count, int64_t first, int64_t last, int64_t* scratch) {
  for_each_direction(pool, count, [&](int d, int member, int members, Barrier& barrier) {
    recurrent_forward_member<Cell>(
        batch, directions[d], first, last, member, members, barrier,
        scratch + (member * count + d) * recurrent_scratch_size<Cell>(batch.rows, directions[d].hidden_size));
  });
}

// Steps [first, last), which come before those of the last call; gates, states:
// [max(threads, directions), rows].
template <class Cell, class T = typename Cell::Value>
void recurrent_backward(const ThreadPool& pool, const RecurrentBatch& batch, const typename Cell::Backward* directions,
                        int count, int64_t first, int64_t last, const T** gates, T** states) {
  for_each_direction(pool, count, [&](int d, int member, int members, Barrier& barrier) {
    const int64_t mine = (member * count + d) * batch.rows;
    recurrent_backward_member<Cell>(batch, directions[d], first, last, member, members, barrier, gates + mine,
                                    states + mine);
  });
}

}  // namespace
}  // namespace asrkern::cpu
