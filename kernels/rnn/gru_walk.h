// The steps of a GRU layer as each thread block ("CTA") of a team walks them, forward and backward.
//
// A step needs every unit's state (backward: every gate's gradient) of the step before, which other thread blocks
// computed. They exchange these through device memory, in epochs. An epoch reads one buffer and writes the other. Then
// every block of the team arrives, and waits for all others before it reads. So a block that writes a buffer has seen
// the arrival of every block that read it. Rows that have ended cost nothing; directions and groups of rows never wait
// for each other.
//
// Cta is a thread block on the device, or one thread that plays it in tests:
//   direction(), group(), first_unit()    which team it is in, and its first hidden unit
//   each_pair(rows, f)    f(slot, unit, row) for each of its units and `rows` rows, always in the same thread
//   PerPair<X>            an X for each slot of the thread
//   wait(), arrive()      for all arrivals of the team so far; after the block's own writes
//   multiply(from, begin, rows)   its slice of the weights by rows begin… of a buffer; sum(row of the slice, row)
//   bias(unit, part)      a float that it keeps
//   sync()                of its threads
#pragma once

#include <cstdint>

#include "kernels/rnn/element.h"
#include "kernels/rnn/gru_batch.h"
#include "kernels/rnn/gru_cell.h"
#include "kernels/rnn/gru_plan.h"

namespace asrkern {

// Values have the type that the kernel is instantiated for, unless they are float. H: hidden_size; D: directions. Rows
// of h0, h_n and their gradients are in the caller's order, rows of `state` are sorted.
struct GruForward {
  GruBatch batch;
  GruPlan plan;
  int hidden_size, directions;
  int first_direction;     // of this launch
  int64_t frames;          // of gates_x, output and reserve
  const void* gates_x;     // [frames, D, 3H] W_ih x, without bias
  const void* weight[2];   // [3H, H] W_hh of each direction, gates r, z, n
  const void* bias_ih[2];  // [3H] or null
  const void* bias_hh[2];  // [3H] or null
  const void* h0;          // [D, rows, H] or null: zeros
  void* output;            // [frames, D·H]; frames that no row has are not written
  void* h_n;               // [D, rows, H]
  void* reserve;           // [D, frames, 4H] r, z, n, h_n; or null
  float* state;            // [D, rows, H] scratch
  void* exchange;          // [teams, exchange_values()] zeros
  uint32_t* arrivals;      // [teams, kArrivalStride] zeros
};

struct GruBackward {
  GruBatch batch;
  GruPlan plan;
  int hidden_size, directions, first_direction;
  int64_t frames;
  const void* weight[2];    // [H, 3H] W_hhᵀ of each direction
  const void* h0;           // [D, rows, H] or null
  const void* output;       // [frames, D·H]
  const void* reserve;      // [D, frames, 4H]
  const void* grad_output;  // [frames, D·H]
  const void* grad_h_n;     // [D, rows, H]
  void* grad_h0;            // [D, rows, H]
  void* grad_gates_x;       // [frames, D, 3H] gradients of W_ih x + b_ih; only frames that a row has are written
  void* grad_gates_h;       // [D, frames, 3H] of W_hh h + b_hh, likewise
  void* h_before;           // [D, frames, H] the state before each frame, likewise
  float* state;             // [D, rows, H] scratch: the part of the gradient that goes on without W_hh
  void* exchange;           // as above
  uint32_t* arrivals;
};

constexpr int kArrivalStride = 32;  // each team's counter in a cache line of its own

// How many values a team exchanges: two buffers [blocks, group_rows, block of k].
template <class T>
ASRKERN_HOST_DEVICE int64_t exchange_values(const GruPlan& plan) {
  return int64_t(2) * plan.blocks * plan.group_rows * kBlockOf<T>;
}

template <class T>
struct GruExchange {
  T* buffers;
  int64_t values;
  int rows;

  ASRKERN_HOST_DEVICE GruExchange(void* exchange, const GruPlan& plan, int team)
      : buffers(static_cast<T*>(exchange) + team * exchange_values<T>(plan)),
        values(exchange_values<T>(plan) / 2),
        rows(plan.group_rows) {}

  ASRKERN_HOST_DEVICE T* of_epoch(int epoch) const { return buffers + (epoch & 1) * values; }
  // The place of value k of a row in a buffer.
  ASRKERN_HOST_DEVICE int64_t index(int row, int k) const {
    return (int64_t(k / kBlockOf<T>) * rows + row) * kBlockOf<T> + k % kBlockOf<T>;
  }
};

// The rows of a team: every `groups`-th sorted row from `group` on. So all teams lose rows at the same pace.
struct GruTeamRows {
  int group, groups;

  ASRKERN_HOST_DEVICE int sorted(int row) const { return row * groups + group; }
  ASRKERN_HOST_DEVICE int among(int rows) const { return (rows + groups - 1 - group) / groups; }
};

// The places of unit j's values in the shapes above.
struct GruIndex {
  int64_t frames;
  int directions, direction, rows, size;

  ASRKERN_HOST_DEVICE int64_t state(int row, int j) const { return (int64_t(direction) * rows + row) * size + j; }
  ASRKERN_HOST_DEVICE int64_t output(int frame, int j) const {
    return (int64_t(frame) * directions + direction) * size + j;
  }
  // The first of three gates in [frames, D, 3H].
  ASRKERN_HOST_DEVICE int64_t gate_x(int frame, int j) const {
    return (int64_t(frame) * directions + direction) * 3 * size + j;
  }
  // The first of `gates` in [D, frames, gates·H].
  ASRKERN_HOST_DEVICE int64_t gate(int gates, int frame, int j) const {
    return (direction * frames + frame) * gates * size + j;
  }
};

template <class Cta, class Args>
ASRKERN_HOST_DEVICE GruIndex gru_index(const Cta& cta, const Args& a) {
  return {a.frames, a.directions, cta.direction(), a.batch.rows, a.hidden_size};
}

template <class T, class Cta>
ASRKERN_HOST_DEVICE void gru_forward_walk(Cta& cta, const GruForward& a, int first, int last) {
  struct Pair {
    float x[3], h;
    int frame;
    GruCellForward cell;
  };
  const int direction = cta.direction(), size = a.hidden_size, unit0 = cta.first_unit(), rows_of_all = a.batch.rows;
  const GruTeamRows team{cta.group(), a.plan.groups};
  const GruExchange<T> exchange(a.exchange, a.plan, direction * a.plan.groups + team.group);
  typename Cta::template PerPair<Pair> pairs;

  for (int epoch = first; epoch < last; ++epoch) {
    const int t = epoch - 1;
    T* next = exchange.of_epoch(epoch);
    const int active = team.among(epoch == 0 ? rows_of_all : a.batch.active[t]);
    if (active == 0) return;
    for (int begin = 0; begin < active; begin += kGruChunk) {
      const int rows = active - begin < kGruChunk ? active - begin : kGruChunk;
      const bool ends = begin + rows == active;
      if (epoch == 0) {
        cta.each_pair(rows, [&](int, int unit, int row) {
          const GruIndex at = gru_index(cta, a);
          const int local = begin + row, i = team.sorted(local), j = unit0 + unit;
          const int64_t mine = at.state(a.batch.order[i], j);
          const T h = a.h0 ? static_cast<const T*>(a.h0)[mine] : from_float<T>(0.0f);
          next[exchange.index(local, j)] = h;
          a.state[at.state(i, j)] = to_float(h);
          if (a.batch.lengths[i] == 0) static_cast<T*>(a.h_n)[mine] = h;
        });
        cta.sync();
        if (ends) cta.arrive();
        continue;
      }
      cta.each_pair(rows, [&](int slot, int unit, int row) {
        const GruIndex at = gru_index(cta, a);
        Pair& pair = pairs[slot];
        const int i = team.sorted(begin + row), j = unit0 + unit;
        pair.frame = a.batch.place(direction, i, t);
        const T* x = static_cast<const T*>(a.gates_x) + at.gate_x(pair.frame, j);
        ASRKERN_UNROLL
        for (int gate = 0; gate < 3; ++gate) pair.x[gate] = to_float(x[gate * size]);
        pair.h = a.state[at.state(i, j)];
      });
      if (begin == 0) cta.wait();
      cta.multiply(exchange.of_epoch(epoch - 1), begin, rows);
      cta.each_pair(rows, [&](int slot, int unit, int row) {
        Pair& pair = pairs[slot];
        const float sums[3] = {cta.sum(unit, row), cta.sum(a.plan.units + unit, row),
                               cta.sum(2 * a.plan.units + unit, row)};
        const float bias[4] = {cta.bias(unit, 0), cta.bias(unit, 1), cta.bias(unit, 2), cta.bias(unit, 3)};
        pair.cell = gru_cell_forward(pair.x, sums, bias, pair.h);
        next[exchange.index(begin + row, unit0 + unit)] = from_float<T>(pair.cell.h);
      });
      cta.sync();
      if (ends) cta.arrive();
      // No other block waits for these.
      cta.each_pair(rows, [&](int slot, int unit, int row) {
        const GruIndex at = gru_index(cta, a);
        const Pair& pair = pairs[slot];
        const int i = team.sorted(begin + row), j = unit0 + unit;
        const T h = from_float<T>(pair.cell.h);
        a.state[at.state(i, j)] = pair.cell.h;
        static_cast<T*>(a.output)[at.output(pair.frame, j)] = h;
        if (t + 1 == a.batch.lengths[i]) static_cast<T*>(a.h_n)[at.state(a.batch.order[i], j)] = h;
        if (!a.reserve) return;
        T* saved = static_cast<T*>(a.reserve) + at.gate(4, pair.frame, j);
        saved[0] = from_float<T>(pair.cell.r);
        saved[size] = from_float<T>(pair.cell.z);
        saved[2 * size] = from_float<T>(pair.cell.n);
        saved[3 * size] = from_float<T>(pair.cell.h_n);
      });
    }
  }
}

// How many epochs a forward pass has: the initial state, then the steps.
ASRKERN_HOST_DEVICE inline int gru_forward_epochs(const GruBatch& batch) { return batch.steps + 1; }

template <class T, class Cta>
ASRKERN_HOST_DEVICE void gru_backward_walk(Cta& cta, const GruBackward& a, int first, int last) {
  struct Pair {
    float grad, r, z, n, h_n, h;
    int frame;
    GruCellBackward cell;
  };
  const int direction = cta.direction(), size = a.hidden_size, unit0 = cta.first_unit(), rows_of_all = a.batch.rows;
  const GruTeamRows team{cta.group(), a.plan.groups};
  const GruExchange<T> exchange(a.exchange, a.plan, direction * a.plan.groups + team.group);
  typename Cta::template PerPair<Pair> pairs;

  for (int epoch = first; epoch < last; ++epoch) {
    const int t = a.batch.steps - 1 - epoch;  // -1 in the last epoch, which only ends the gradient of h0
    T* next = exchange.of_epoch(epoch);
    const int later = epoch > 0 ? team.among(a.batch.active[t + 1]) : 0;  // rows whose gates' gradients arrive
    const int active = team.among(t >= 0 ? a.batch.active[t] : rows_of_all);
    for (int begin = 0; begin < active; begin += kGruChunk) {
      const int rows = active - begin < kGruChunk ? active - begin : kGruChunk;
      const int summed = later - begin < 0 ? 0 : later - begin < rows ? later - begin : rows;
      const bool ends = begin + rows == active;
      cta.each_pair(rows, [&](int slot, int unit, int row) {
        const GruIndex at = gru_index(cta, a);
        Pair& pair = pairs[slot];
        const int i = team.sorted(begin + row), j = unit0 + unit;
        const int64_t mine = at.state(a.batch.order[i], j);
        const bool begins = t == a.batch.lengths[i] - 1;
        pair.grad = begins ? to_float(static_cast<const T*>(a.grad_h_n)[mine]) : a.state[at.state(i, j)];
        if (t < 0) return;
        pair.frame = a.batch.place(direction, i, t);
        pair.grad += to_float(static_cast<const T*>(a.grad_output)[at.output(pair.frame, j)]);
        const T* saved = static_cast<const T*>(a.reserve) + at.gate(4, pair.frame, j);
        pair.r = to_float(saved[0]);
        pair.z = to_float(saved[size]);
        pair.n = to_float(saved[2 * size]);
        pair.h_n = to_float(saved[3 * size]);
        if (t > 0)
          pair.h = to_float(static_cast<const T*>(a.output)[at.output(a.batch.place(direction, i, t - 1), j)]);
        else
          pair.h = a.h0 ? to_float(static_cast<const T*>(a.h0)[mine]) : 0.0f;
      });
      if (begin == 0 && later > 0) cta.wait();
      if (summed > 0) cta.multiply(exchange.of_epoch(epoch - 1), begin, summed);
      cta.each_pair(rows, [&](int slot, int unit, int row) {
        Pair& pair = pairs[slot];
        if (row < summed) pair.grad += cta.sum(unit, row);
        if (t < 0) return;
        pair.cell = gru_cell_backward(pair.grad, pair.r, pair.z, pair.n, pair.h_n, pair.h);
        const int local = begin + row, k = unit0 + unit;
        next[exchange.index(local, k)] = from_float<T>(pair.cell.r);
        next[exchange.index(local, size + k)] = from_float<T>(pair.cell.z);
        next[exchange.index(local, 2 * size + k)] = from_float<T>(pair.cell.h_n);
      });
      cta.sync();
      if (ends && t >= 0) cta.arrive();
      // No other block waits for these.
      cta.each_pair(rows, [&](int slot, int unit, int row) {
        const GruIndex at = gru_index(cta, a);
        const Pair& pair = pairs[slot];
        const int i = team.sorted(begin + row), j = unit0 + unit;
        if (t < 0) {
          static_cast<T*>(a.grad_h0)[at.state(a.batch.order[i], j)] = from_float<T>(pair.grad);
          return;
        }
        a.state[at.state(i, j)] = pair.cell.carried;
        const T r = from_float<T>(pair.cell.r), z = from_float<T>(pair.cell.z);
        T* of_x = static_cast<T*>(a.grad_gates_x) + at.gate_x(pair.frame, j);
        T* of_h = static_cast<T*>(a.grad_gates_h) + at.gate(3, pair.frame, j);
        of_x[0] = of_h[0] = r;
        of_x[size] = of_h[size] = z;
        of_x[2 * size] = from_float<T>(pair.cell.n);
        of_h[2 * size] = from_float<T>(pair.cell.h_n);
        static_cast<T*>(a.h_before)[at.gate(1, pair.frame, j)] = from_float<T>(pair.h);
      });
    }
  }
}

// How many epochs a backward pass has: the steps from the last on, then the gradient of the initial state.
ASRKERN_HOST_DEVICE inline int gru_backward_epochs(const GruBatch& batch) { return batch.steps + 1; }

// The place of a thread block in a launch: one team after the other, one direction after the other.
struct GruPlace {
  int direction, group, team, first_unit;

  ASRKERN_HOST_DEVICE GruPlace(const GruPlan& plan, int first_direction, int block)
      : direction(first_direction + block / plan.ctas / plan.groups),
        group(block / plan.ctas % plan.groups),
        team(direction * plan.groups + group),
        first_unit(block % plan.ctas * plan.units) {}
};

// How many teams a whole layer has. Each has its part of `exchange` and `arrivals`.
ASRKERN_HOST_DEVICE inline int gru_teams(const GruPlan& plan, int directions) { return directions * plan.groups; }

// Part `part` of a unit's bias, as gru_cell_forward takes it.
template <class T>
ASRKERN_HOST_DEVICE float gru_bias(const GruForward& a, int direction, int unit, int part) {
  const T* ih = static_cast<const T*>(a.bias_ih[direction]);
  const T* hh = static_cast<const T*>(a.bias_hh[direction]);
  const int64_t at = int64_t(part < 3 ? part : 2) * a.hidden_size + unit;
  const float of_x = ih && part < 3 ? to_float(ih[at]) : 0.0f, of_h = hh && part != 2 ? to_float(hh[at]) : 0.0f;
  return of_x + of_h;
}

}  // namespace asrkern
