// softmax(scale · Q Kᵀ + bias) V of a ragged batch, by heads.
//
// Scores are summed over k, and outputs over keys, by linear.h's blocks; what the weights are divided by is summed in
// an order that the row's own keys alone decide. So a row's result depends neither on its batch nor on anything beyond
// its length.
#pragma once

#include "kernels/linear/cpu/linear.h"

namespace asrkern::cpu {

// Vectors of several heads beside each other, `stride` apart.
template <class T>
struct HeadRows {
  T* first;
  int64_t stride;

  T* at(int64_t row, int64_t column) const { return first + row * stride + column; }
};

// What is added to the scores, of which the last dimension is contiguous; dimensions of stride 0 are shared.
template <class T>
struct AttentionBias {
  const T* values = nullptr;  // or null
  int64_t of_row, of_head, of_query;
};

template <class T>
struct Attention {
  int64_t rows;
  const int64_t* query_starts;  // [rows + 1] queries before each row's
  const int64_t* key_starts;    // [rows + 1]
  int64_t longest_query, longest_key;
  int64_t heads, key_heads;    // heads / key_heads neighbours share a head of keys and values
  int64_t width, value_width;  // of a head
  HeadRows<const T> query;     // [queries, heads · width]
  HeadRows<const T> key;       // [keys, key_heads · width]
  HeadRows<const T> value;     // [keys, key_heads · value_width]
  AttentionBias<T> bias;
  bool causal;  // query i sees the keys up to the i-th
  T scale;
  T* output;   // [queries, heads · value_width]
  T* scratch;  // [attention_scratch_size]
};

namespace {

// Queries that share what is packed of keys and values: a multiple of every tile's rows.
constexpr int64_t kQueries = 192;

template <class T>
int64_t attention_worker_size(int64_t longest_key, int64_t width) {
  const int64_t deepest = longest_key > width ? longest_key : width;
  return LinearTile<T>::kColumns * deepest + kQueries * longest_key;
}
template <class T>
int64_t attention_scratch_size(const ThreadPool& pool, int64_t longest_key, int64_t width) {
  return pool.threads * attention_worker_size<T>(longest_key, width);
}

// The highest of count values; of NaNs there may be nothing in it.
template <class T>
T attention_highest(const T* values, int64_t count) {
  constexpr int kLanes = 16;
  T lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = values[0];
  int64_t t = 0;
  for (; t + kLanes <= count; t += kLanes)
    for (int i = 0; i < kLanes; ++i) lane[i] = values[t + i] > lane[i] ? values[t + i] : lane[i];
  for (; t < count; ++t) lane[0] = values[t] > lane[0] ? values[t] : lane[0];
  for (int i = 1; i < kLanes; ++i) lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
  return lane[0];
}

// weights[t] = e^(scale · scores[t] + bias[t]) / Σ for t < seen, 0 from there to keys, over the scores. No weight where
// the bias is −∞, and none at all where it is that everywhere.
template <class T>
void attention_softmax(T* scores, int64_t seen, int64_t keys, T scale, const T* bias) {
  using V = Vec<T>;
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  for (int64_t t = seen; t < keys; ++t) scores[t] = 0;
  if (seen == 0) return;
  for (int64_t t = 0; t < seen; t += V::kWidth) {
    const int count = int(seen - t < V::kWidth ? seen - t : V::kWidth);
    V score = V::load(scores + t, count) * V::set1(scale);
    if (bias) score = score + V::load(bias + t, count);
    score.store(scores + t, count);
  }
  const T highest = attention_highest(scores, seen);
  bool none = highest == kNone;
  // Unless there is a NaN.
  for (int64_t t = 0; none && t < seen; ++t) none = scores[t] == kNone;
  if (none) {
    for (int64_t t = 0; t < seen; ++t) scores[t] = 0;
    return;
  }
  for (int64_t t = 0; t < seen; t += V::kWidth) {
    const int count = int(seen - t < V::kWidth ? seen - t : V::kWidth);
    exp(V::load(scores + t, count) - V::set1(highest)).store(scores + t, count);
  }
  // exp saturates.
  if (bias)
    for (int64_t t = 0; t < seen; ++t) scores[t] = bias[t] == kNone ? T(0) : scores[t];
  V total = V::set1(0);
  for (int64_t t = 0; t < seen; t += V::kWidth)
    total = total + V::load(scores + t, int(seen - t < V::kWidth ? seen - t : V::kWidth));
  const V by = V::set1(T(1) / sum(total));
  for (int64_t t = 0; t < seen; t += V::kWidth) {
    const int count = int(seen - t < V::kWidth ? seen - t : V::kWidth);
    (V::load(scores + t, count) * by).store(scores + t, count);
  }
}

// Queries [first, last) of one row and one head of keys, counted with the heads that share it: number q is query q / G,
// by head q % G of the G.
template <class T>
void attention_block(const Attention<T>& a, int64_t row, int64_t key_head, int64_t first, int64_t last, T* scratch) {
  constexpr int kColumns = LinearTile<T>::kColumns;
  const int64_t sharing = a.heads / a.key_heads, count = last - first;
  const int64_t query_start = a.query_starts[row], key_start = a.key_starts[row];
  int64_t keys = a.key_starts[row + 1] - key_start;
  const int64_t seen_by_last = (last - 1) / sharing + 1;
  if (a.causal && seen_by_last < keys) keys = seen_by_last;
  T *packed = scratch, *scores = scratch + attention_worker_size<T>(a.longest_key, a.width) - kQueries * a.longest_key;
  const T* inputs[kQueries];
  T* outputs[kQueries];
  for (int64_t m = 0; m < count; ++m) {
    const int64_t q = first + m;
    inputs[m] = a.query.at(query_start + q / sharing, (key_head * sharing + q % sharing) * a.width);
  }
  for (int64_t t = 0; t < keys; t += kColumns) {
    const int columns = int(keys - t < kColumns ? keys - t : kColumns);
    transpose(a.key.at(key_start + t, key_head * a.width), a.key.stride, columns, kColumns, a.width, packed, kColumns);
    for (int64_t m = 0; m < count; ++m) outputs[m] = scores + m * keys + t;
    linear_panel<T>(inputs, count, packed, a.width, nullptr, nullptr, false, columns, outputs);
  }
  for (int64_t m = 0; m < count; ++m) {
    const int64_t query = (first + m) / sharing, head = key_head * sharing + (first + m) % sharing;
    const T* bias =
        a.bias.values ? a.bias.values + row * a.bias.of_row + head * a.bias.of_head + query * a.bias.of_query : nullptr;
    attention_softmax(scores + m * keys, a.causal && query + 1 < keys ? query + 1 : keys, keys, a.scale, bias);
    inputs[m] = scores + m * keys;
  }
  for (int64_t v = 0; v < a.value_width; v += kColumns) {
    const int columns = int(a.value_width - v < kColumns ? a.value_width - v : kColumns);
    for (int64_t t = 0; t < keys; ++t) {
      const T* from = a.value.at(key_start + t, key_head * a.value_width + v);
      T* to = packed + t * kColumns;
      for (int j = 0; j < columns; ++j) to[j] = from[j];
      for (int j = columns; j < kColumns; ++j) to[j] = 0;
    }
    for (int64_t m = 0; m < count; ++m) {
      const int64_t q = first + m, head = key_head * sharing + q % sharing;
      outputs[m] = a.output + (query_start + q / sharing) * a.heads * a.value_width + head * a.value_width + v;
    }
    linear_panel<T>(inputs, count, packed, keys, nullptr, nullptr, false, columns, outputs);
  }
}

// Blocks of queries of a row and a head of keys, shared out among the threads.
template <class T>
void attention(const ThreadPool& pool, const Attention<T>& a) {
  const int64_t sharing = a.heads / a.key_heads, blocks = ceil_div(a.longest_query * sharing, kQueries);
  const int64_t tasks = a.rows * a.key_heads * blocks;
  const int64_t workers = tasks < pool.threads ? tasks : pool.threads;
  parallel_for(pool, workers, [=](int64_t worker) {
    T* scratch = a.scratch + worker * attention_worker_size<T>(a.longest_key, a.width);
    for (int64_t task = tasks * worker / workers; task < tasks * (worker + 1) / workers; ++task) {
      const int64_t row = task / (a.key_heads * blocks), first = task % blocks * kQueries;
      const int64_t queries = (a.query_starts[row + 1] - a.query_starts[row]) * sharing;
      if (first >= queries) continue;
      const int64_t last = first + kQueries < queries ? first + kQueries : queries;
      attention_block(a, row, task / blocks % a.key_heads, first, last, scratch);
    }
  });
}

}  // namespace
}  // namespace asrkern::cpu
