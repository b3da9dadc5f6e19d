// An attention speller (Chan et al. 2016, "Listen, Attend and Spell"): from a token to the logits of the next one.
//
// A step of a row:
//   x = embedding[token], with the context of the step before behind it if `feeds_context`
//   x = cell_i(x), i = 0, 1, …;   query = the last x
//   scores over the row's valid frames t, with q = W query + b where there is a projection:
//     mean: 0      dot: scale · q·keys[t], in heads      additive: Σ_a energy[a] tanh(q[a] + keys[t][a] + l[t][a])
//     where l[t] = location_bias + Σ_j location[j] · previous[t + j − kernel_size / 2], from the second step on
//   weights = softmax(scores), or with `smoothing` σ(scores) / Σ σ(scores);   context = Σ_t weights[t] · values[t]
//   features = [query; context], of which the outputs' first layer takes a part;   logits = dense layers with tanh
//   between
//
// All members of the team walk through all steps; a row's result does not depend on the other rows or on their number.
#pragma once

#include <cmath>
#include <limits>

#include "kernels/rnn/cpu/dense.h"
#include "kernels/rnn/cpu/gru.h"
#include "kernels/rnn/cpu/lstm.h"

namespace asrkern::cpu {

enum class SpellerScores { kMean, kDot, kAdditive };

template <class T, class W>
struct SpellerCell {
  Dense<T, W> input;   // W_ih, in gates, with every bias that is a plain sum
  const W* packed_hh;  // gates_pack of W_hh
  const T* scale_hh;   // [gates·size] or null
  const T* bias_n;     // [size] a GRU's n part of b_hh, or null
  T* x;                // [rows, input.in_features] scratch
  T* h;                // [2, rows, size] a step reads one and writes the other
  T* c;                // [rows, size] an LSTM's
  T* const* outputs;   // [rows] where the h of each row goes, too: the x of the next cell, or features
};

template <class T, class W>
struct SpellerAttention {
  SpellerScores scores;
  bool projects;           // whether there is a projection
  Dense<T, W> query;       // to `size` features
  int64_t size;            // of q and keys
  int64_t heads;           // that divide size and context_size
  T scale;                 // of dot products
  const T* energy;         // [size]
  const T* location;       // [kernel_size, size] or null
  const T* location_bias;  // [size]
  int64_t kernel_size;     // odd
  bool smoothing;
};

template <class T, class W>
struct Speller {
  bool gru;            // or LSTMs
  const T* embedding;  // [num_tokens, embedding_size]
  int64_t num_tokens, embedding_size;
  bool feeds_context;
  int64_t size, context_size;
  const SpellerCell<T, W>* cells;
  int cell_count;
  SpellerAttention<T, W> attention;
  int64_t features_begin;  // the first of [query; context] that the outputs take
  const Dense<T, W>* outputs;
  int output_count;
};

// What is attended to.
template <class T>
struct SpellerMemory {
  const T* keys;           // [memories, frames, size]
  const T* values;         // [memories, frames, context_size]
  const int64_t* lengths;  // [memories] valid frames
  int64_t frames;
};

// Rows, where they are and what is left of them. Those of greedy spelling that have ended are moved out of the way.
template <class T>
struct SpellerRows {
  int64_t rows;
  int64_t rows_per_memory;  // row i attends to memory i / rows_per_memory
  int64_t* tokens;          // [rows] taken by the next step
  int64_t* origins;         // [rows] of greedy spelling: which row of the caller's each one is
  T* weights;               // [rows, frames] those of the step before, then the new ones
  bool has_previous;        // whether there was a step before
  T* features;              // [rows, size + context_size]: from the context on, that of the step before
  T* gates_x;               // [rows, gates·size] scratch
  T* query;                 // [rows, attention's size] scratch
  T* scores;                // [rows, heads, frames] scratch
  T* hidden[2];             // [rows, widest output] scratch
  T* logits;                // [rows, num_tokens]
  int64_t* frames_of;       // [rows] 0, 1, 2, …
};

// Greedy spelling: the most probable token at each step, until eos or max_length of them.
struct SpellerGreedy {
  int64_t eos, max_length;
  int64_t* tokens;    // [rows, max_length]
  int64_t* counts;    // [rows]
  double* log_probs;  // [rows] Σ log P, of eos, too
};

namespace {

// Σ_a q[a] k[a], the same order for each frame.
template <class T>
T dot(const T* q, const T* k, int64_t size) {
  using V = Vec<T>;
  V acc[2] = {V::set1(0), V::set1(0)};
  int64_t a = 0;
  for (; a + 2 * V::kWidth <= size; a += 2 * V::kWidth)
    for (int i = 0; i < 2; ++i) acc[i] = fma(V::load(q + a + i * V::kWidth), V::load(k + a + i * V::kWidth), acc[i]);
  for (; a < size; a += V::kWidth) {
    const int count = int(size - a < V::kWidth ? size - a : V::kWidth);
    acc[0] = fma(V::load(q + a, count), V::load(k + a, count), acc[0]);
  }
  return sum(acc[0] + acc[1]);
}

// The additive score of frame t; previous: [frames] or null.
template <class T, class W>
T additive_score(const SpellerAttention<T, W>& a, const T* q, const T* key, const T* previous, int64_t t,
                 int64_t frames) {
  using V = Vec<T>;
  V total = V::set1(0);
  const int64_t half = a.kernel_size / 2;
  for (int64_t i = 0; i < a.size; i += V::kWidth) {
    const int count = int(a.size - i < V::kWidth ? a.size - i : V::kWidth);
    V x = V::load(q + i, count) + V::load(key + i, count);
    if (previous) {
      V located = V::load(a.location_bias + i, count);
      for (int64_t j = 0; j < a.kernel_size; ++j) {
        const int64_t at = t + j - half;
        if (at < 0 || at >= frames) continue;
        located = fma(V::set1(previous[at]), V::load(a.location + j * a.size + i, count), located);
      }
      x = x + located;
    }
    total = fma(V::load(a.energy + i, count), tanh(x), total);
  }
  return sum(total);
}

// weights[t] of scores[t] for t < length, 0 beyond, over itself.
template <class T>
void normalise(T* scores, int64_t length, int64_t frames, bool smoothing) {
  using V = Vec<T>;
  for (int64_t t = length; t < frames; ++t) scores[t] = 0;
  if (length == 0) return;
  T highest = scores[0];
  for (int64_t t = 1; t < length; ++t) highest = scores[t] > highest ? scores[t] : highest;
  V total = V::set1(0);
  for (int64_t t = 0; t < length; t += V::kWidth) {
    const int count = int(length - t < V::kWidth ? length - t : V::kWidth);
    const V score = V::load(scores + t, count);
    (smoothing ? sigmoid(score) : exp(score - V::set1(highest))).store(scores + t, count);
    // What the lanes beyond hold must not be summed.
    total = total + V::load(scores + t, count);
  }
  T all = sum(total);
  // Sigmoids may all be 0; a NaN stays one.
  if (all < std::numeric_limits<T>::min()) all = std::numeric_limits<T>::min();
  const V by = V::set1(T(1) / all);
  for (int64_t t = 0; t < length; t += V::kWidth) {
    const int count = int(length - t < V::kWidth ? length - t : V::kWidth);
    (V::load(scores + t, count) * by).store(scores + t, count);
  }
}

// Features [begin, end) of Σ_t weights[t] · values[t].
template <class T>
void weighted_sum(const T* weights, const T* values, int64_t length, int64_t stride, int64_t begin, int64_t end,
                  T* context) {
  using V = Vec<T>;
  for (int64_t i = begin; i < end; i += V::kWidth) {
    const int count = int(end - i < V::kWidth ? end - i : V::kWidth);
    V acc = V::set1(0);
    for (int64_t t = 0; t < length; ++t) acc = fma(V::set1(weights[t]), V::load(values + t * stride + i, count), acc);
    acc.store(context + i, count);
  }
}

// One member's share of the steps of a team.
template <class T, class W, class Cell>
class SpellerMember {
 public:
  SpellerMember(const Speller<T, W>& speller, const SpellerMemory<T>& memory, const SpellerRows<T>& rows, int member,
                int members, Barrier& barrier)
      : s_(speller), m_(memory), r_(rows), member_(member), members_(members), barrier_(barrier) {}

  // `active` rows; `parity` says which of the two states is the one before.
  void step(int64_t active, int parity, bool has_previous) {
    embed(active);
    sync();
    for (int i = 0; i < s_.cell_count; ++i) {
      cell(s_.cells[i], active, parity);
      sync();
    }
    attend(active, has_previous);
    sync();
    DenseRows<const T> x{r_.features + s_.features_begin, s_.size + s_.context_size};
    for (int i = 0; i < s_.output_count; ++i) {
      const Dense<T, W>& layer = s_.outputs[i];
      const bool last = i + 1 == s_.output_count;
      const DenseRows<T> y{last ? r_.logits : r_.hidden[i % 2], layer.units};
      const Share share(layer.units, kWidth, member_, members_);
      if (share.begin < share.end) dense<T, W, 1>(layer, x, y, !last, active, share.begin, share.end);
      x = {y.first, y.stride};
      sync();
    }
  }

 private:
  static constexpr int kWidth = Vec<T>::kWidth;

  void sync() { barrier_.wait(members_); }

  void embed(int64_t active) {
    if (member_ != 0) return;
    const int64_t width = s_.cells[0].input.in_features;
    for (int64_t row = 0; row < active; ++row) {
      T* x = s_.cells[0].x + row * width;
      copy(s_.embedding + r_.tokens[row] * s_.embedding_size, s_.embedding_size, x);
      if (s_.feeds_context) copy(context(row), s_.context_size, x + s_.embedding_size);
    }
  }

  void cell(const SpellerCell<T, W>& cell, int64_t active, int parity) {
    const int64_t size = s_.size;
    const Share share(size, kWidth, member_, members_);
    if (share.begin >= share.end) return;
    dense<T, W, Cell::kGates>(cell.input, {cell.x, cell.input.in_features}, {r_.gates_x, Cell::kGates * size}, false,
                              active, share.begin, share.end);
    typename Cell::Forward pass{};
    pass.hidden_size = size;
    pass.weight_packed = cell.packed_hh;
    pass.outputs = cell.outputs;
    pass.scale = cell.scale_hh;
    complete(pass, cell);
    const T* h = cell.h + parity * r_.rows * size;
    T* h_next = cell.h + (1 - parity) * r_.rows * size;
    recurrent_step<Cell>(pass, RecurrentStep<Cell>{r_.frames_of, r_.gates_x, h, h_next, h, nullptr}, active,
                         share.begin, share.end, false);
  }

  static void complete(GruForward<T, W>& pass, const SpellerCell<T, W>& cell) { pass.bias_n = cell.bias_n; }
  static void complete(LstmForward<T, W>& pass, const SpellerCell<T, W>& cell) { pass.c = cell.c; }

  void attend(int64_t active, bool has_previous) {
    const SpellerAttention<T, W>& a = s_.attention;
    const int64_t stride = s_.size + s_.context_size;
    if (a.projects) {
      const Share share(a.query.units, kWidth, member_, members_);
      if (share.begin < share.end)
        dense<T, W, 1>(a.query, {r_.features, stride}, {r_.query, a.size}, false, active, share.begin, share.end);
      sync();
    }
    for (int64_t row = 0; row < active; ++row)
      score(row, a.projects ? r_.query + row * a.size : r_.features + row * stride, has_previous);
    sync();
    // A head of a row at a time, whose softmax one member takes.
    const Share mine(active * a.heads, 1, member_, members_);
    for (int64_t task = mine.begin; task < mine.end; ++task)
      normalise(r_.scores + task * m_.frames, length(task / a.heads), m_.frames, a.smoothing);
    sync();
    const int64_t width = s_.context_size / a.heads, blocks = ceil_div(width, kWidth);
    const Share share(a.heads * blocks, 1, member_, members_);
    for (int64_t row = 0; row < active; ++row) {
      for (int64_t task = share.begin; task < share.end; ++task) {
        const int64_t head = task / blocks, begin = head * width + task % blocks * kWidth;
        const int64_t end = begin + kWidth < (head + 1) * width ? begin + kWidth : (head + 1) * width;
        weighted_sum(r_.scores + (row * a.heads + head) * m_.frames, values(row), length(row), s_.context_size, begin,
                     end, context(row));
      }
      mean_weights(row);
    }
  }

  void score(int64_t row, const T* q, bool has_previous) {
    const SpellerAttention<T, W>& a = s_.attention;
    const Share share(length(row), 1, member_, members_);
    const T* keys = m_.keys + memory(row) * m_.frames * a.size;
    const T* previous = a.location && has_previous ? r_.weights + row * m_.frames : nullptr;
    const int64_t width = a.size / a.heads;
    for (int64_t head = 0; head < a.heads; ++head) {
      T* scores = r_.scores + (row * a.heads + head) * m_.frames;
      for (int64_t t = share.begin; t < share.end; ++t) {
        const T* key = keys + t * a.size + head * width;
        if (a.scores == SpellerScores::kMean)
          scores[t] = 0;
        else if (a.scores == SpellerScores::kDot)
          scores[t] = a.scale * dot(q + head * width, key, width);
        else
          scores[t] = additive_score(a, q, key, previous, t, m_.frames);
      }
    }
  }

  // The mean over heads, of this member's frames.
  void mean_weights(int64_t row) {
    const int64_t heads = s_.attention.heads;
    const Share share(m_.frames, 1, member_, members_);
    const T* of_heads = r_.scores + row * heads * m_.frames;
    for (int64_t t = share.begin; t < share.end; ++t) {
      T total = of_heads[t];
      for (int64_t head = 1; head < heads; ++head) total += of_heads[head * m_.frames + t];
      r_.weights[row * m_.frames + t] = total / T(heads);
    }
  }

  int64_t memory(int64_t row) const { return r_.origins[row] / r_.rows_per_memory; }
  int64_t length(int64_t row) const { return m_.lengths[memory(row)]; }
  const T* values(int64_t row) const { return m_.values + memory(row) * m_.frames * s_.context_size; }
  T* context(int64_t row) const { return r_.features + row * (s_.size + s_.context_size) + s_.size; }

  const Speller<T, W>& s_;
  const SpellerMemory<T>& m_;
  const SpellerRows<T>& r_;
  const int member_, members_;
  Barrier& barrier_;
};

// The token of the highest logit, the first of equal ones, and its log-probability.
template <class T>
int64_t most_probable(const T* logits, int64_t count, double* log_prob) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i)
    if (logits[i] > logits[best]) best = i;
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += std::exp(double(logits[i]) - double(logits[best]));
  *log_prob = -std::log(total);
  return best;
}

// Row `from` takes the place of row `to`; `parity` says which state is the latest.
template <class T, class W>
void move_row(const Speller<T, W>& s, const SpellerMemory<T>& memory, const SpellerRows<T>& r, int64_t from, int64_t to,
              int parity) {
  if (from == to) return;
  for (int i = 0; i < s.cell_count; ++i) {
    T* h = s.cells[i].h + parity * r.rows * s.size;
    copy(h + from * s.size, s.size, h + to * s.size);
    if (s.cells[i].c) copy(s.cells[i].c + from * s.size, s.size, s.cells[i].c + to * s.size);
  }
  const int64_t width = s.size + s.context_size;
  copy(r.features + from * width, width, r.features + to * width);
  copy(r.weights + from * memory.frames, memory.frames, r.weights + to * memory.frames);
  r.tokens[to] = r.tokens[from];
  r.origins[to] = r.origins[from];
}

// After a step: what each row says, and which rows go on.
template <class T, class W>
int64_t choose(const Speller<T, W>& s, const SpellerMemory<T>& memory, const SpellerRows<T>& r, const SpellerGreedy& g,
               int64_t active, int parity) {
  for (int64_t row = active - 1; row >= 0; --row) {
    double log_prob;
    const int64_t token = most_probable(r.logits + row * s.num_tokens, s.num_tokens, &log_prob);
    const int64_t origin = r.origins[row];
    g.tokens[origin * g.max_length + g.counts[origin]++] = token;
    g.log_probs[origin] += log_prob;
    r.tokens[row] = token;
    // Those behind have been asked before.
    if (token == g.eos) move_row(s, memory, r, --active, row, parity);
  }
  return active;
}

template <class T, class W, class Cell>
void spell_with(const ThreadPool& pool, const Speller<T, W>& speller, const SpellerMemory<T>& memory,
                const SpellerRows<T>& rows, const SpellerGreedy* greedy) {
  Barrier barrier;
  alignas(64) int64_t shared = rows.rows;
  run_team(pool, pool.threads, [&](int member, int members) {
    SpellerMember<T, W, Cell> mine(speller, memory, rows, member, members, barrier);
    if (!greedy) return mine.step(rows.rows, 0, rows.has_previous);
    for (int64_t step = 0; step < greedy->max_length; ++step) {
      const int64_t active = __atomic_load_n(&shared, __ATOMIC_ACQUIRE);
      if (active == 0) break;
      mine.step(active, int(step % 2), step > 0);
      if (member == 0)
        __atomic_store_n(&shared, choose(speller, memory, rows, *greedy, active, int(1 - step % 2)), __ATOMIC_RELEASE);
      barrier.wait(members);
    }
  });
}

// One step of all rows, or with `greedy` all of them to the end.
template <class T, class W>
void spell(const ThreadPool& pool, const Speller<T, W>& speller, const SpellerMemory<T>& memory,
           const SpellerRows<T>& rows, const SpellerGreedy* greedy) {
  if (speller.gru)
    spell_with<T, W, GruCell<T, W>>(pool, speller, memory, rows, greedy);
  else
    spell_with<T, W, LstmCell<T, W>>(pool, speller, memory, rows, greedy);
}

}  // namespace
}  // namespace asrkern::cpu
