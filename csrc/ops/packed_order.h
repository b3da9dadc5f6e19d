// A ragged batch, which the caller padded or packed, in the order in which the recurrent kernels walk it.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>

#include "csrc/ops/common.h"
#include "csrc/ops/recurrent_arguments.h"

namespace asrkern {

// The batch in packed order, and the places of its frames in the caller's tensors.
struct PackedOrder {
  std::vector<int64_t> active, offsets, lengths;  // as in cpu::RecurrentBatch; rows sorted, longest first
  std::vector<int64_t> rows;                      // [rows] the caller's row of each sorted row
  std::vector<int64_t> frames;                    // [frames] the caller's frame of each packed frame
  bool identity = true;                           // frames[p] == p for all of the caller's frames

  cpu::RecurrentBatch batch() const {
    return {int64_t(lengths.size()), int64_t(active.size()), int64_t(frames.size()),
            active.data(),           offsets.data(),         lengths.data()};
  }
};

inline PackedOrder order_by_batch_sizes(const Tensor& batch_sizes, int64_t frames) {
  const Tensor values = dense(batch_sizes);
  const int64_t* sizes = data<int64_t>(values);
  PackedOrder order;
  int64_t total = 0;
  for (int64_t t = 0; t < values.numel(); ++t) {
    if (sizes[t] < 1 || (t > 0 && sizes[t] > sizes[t - 1]))
      invalid("batch_sizes: expected positive values that never grow, received ", sizes[t], " at step ", t);
    if (sizes[t] > frames - total)
      invalid("batch_sizes: expected values that sum to the ", frames, " frames of the input, received ", sizes[t],
              " at step ", t, ", where ", frames - total, " are left");
    order.active.push_back(sizes[t]);
    order.offsets.push_back(total);
    total += sizes[t];
  }
  if (total != frames)
    invalid("batch_sizes: expected values that sum to the ", frames, " frames of the input, received the sum ", total);
  const int64_t rows = order.active.empty() ? 0 : order.active[0];
  order.lengths.assign(rows, 0);
  for (int64_t count : order.active)
    for (int64_t i = 0; i < count; ++i) ++order.lengths[i];
  order.rows.resize(rows);
  std::iota(order.rows.begin(), order.rows.end(), 0);
  order.frames.resize(frames);
  std::iota(order.frames.begin(), order.frames.end(), 0);
  return order;
}

inline PackedOrder order_by_lengths(const std::optional<Tensor>& lengths, int64_t rows, int64_t steps,
                                    bool batch_first) {
  PackedOrder order;
  const std::vector<int64_t> values =
      lengths ? read_lengths(*lengths, "lengths", rows, steps) : std::vector<int64_t>(rows, steps);
  order.rows.resize(rows);
  std::iota(order.rows.begin(), order.rows.end(), 0);
  order.frames.reserve(size_t(std::accumulate(values.begin(), values.end(), int64_t(0))));
  std::stable_sort(order.rows.begin(), order.rows.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  for (int64_t row : order.rows) order.lengths.push_back(values[row]);
  const int64_t longest = rows > 0 ? order.lengths[0] : 0;
  for (int64_t t = 0, active = rows; t < longest; ++t) {
    while (order.lengths[active - 1] <= t) --active;
    order.active.push_back(active);
    order.offsets.push_back(int64_t(order.frames.size()));
    for (int64_t i = 0; i < active; ++i)
      order.frames.push_back(batch_first ? order.rows[i] * steps + t : t * rows + order.rows[i]);
  }
  order.identity = int64_t(order.frames.size()) == rows * steps;
  for (size_t p = 0; p < order.frames.size() && order.identity; ++p) order.identity = order.frames[p] == int64_t(p);
  return order;
}

inline PackedOrder make_order(const Tensor& input, const std::optional<Tensor>& lengths,
                              const std::optional<Tensor>& batch_sizes, bool batch_first) {
  // An input without features has no memory of its own, so it may name more frames than memory can list: then this
  // fails.
  if (input.numel() == 0) {
    const auto sizes = sizes_of(input);
    allocate(input, Sizes(sizes.data(), sizes.size() - 1), ScalarType::Long);
  }
  if (batch_sizes) return order_by_batch_sizes(*batch_sizes, input.size(0));
  return order_by_lengths(lengths, input.size(batch_first ? 0 : 1), input.size(batch_first ? 1 : 0), batch_first);
}

// States [directions, rows, hidden_size] in sorted order; zeros if there are none. name: of the argument.
inline Tensor sorted_states(const char* name, const Tensor& like, const std::optional<Tensor>& states,
                            const PackedOrder& order, int64_t directions, int64_t hidden_size) {
  const int64_t rows = int64_t(order.rows.size());
  check(name, states).dtype(like).shape({directions, rows, hidden_size});
  Tensor sorted = allocate_zeros(like, {directions, rows, hidden_size});
  if (!states) return sorted;
  const Tensor from = dense(*states);
  const size_t bytes = size_t(hidden_size) * like.element_size();
  const char* source = static_cast<const char*>(from.const_data_ptr());
  char* target = static_cast<char*>(sorted.mutable_data_ptr());
  for (int64_t d = 0; d < directions; ++d)
    for (int64_t i = 0; i < rows; ++i)
      std::memcpy(target + size_t(d * rows + i) * bytes, source + size_t(d * rows + order.rows[i]) * bytes, bytes);
  return sorted;
}

// The inverse of sorted_states.
inline Tensor caller_states(const Tensor& sorted, const PackedOrder& order) {
  Tensor result = new_output(sorted, {sorted.size(0), sorted.size(1), sorted.size(2)});
  const int64_t rows = sorted.size(1);
  const size_t bytes = size_t(sorted.size(2)) * sorted.element_size();
  const char* source = static_cast<const char*>(sorted.const_data_ptr());
  char* target = static_cast<char*>(result.mutable_data_ptr());
  for (int64_t d = 0; d < sorted.size(0); ++d)
    for (int64_t i = 0; i < rows; ++i)
      std::memcpy(target + size_t(d * rows + order.rows[i]) * bytes, source + size_t(d * rows + i) * bytes, bytes);
  return result;
}

// Writes zeros to the frames of an output that no row reaches.
template <class T>
void zero_padding(const PackedOrder& order, int64_t frames, int64_t width, T* values) {
  if (int64_t(order.frames.size()) == frames) return;
  std::vector<bool> reached(frames, false);
  for (int64_t frame : order.frames) reached[frame] = true;
  for (int64_t frame = 0; frame < frames; ++frame)
    if (!reached[frame]) std::fill_n(values + frame * width, width, T(0));
}

// For each packed frame a pointer to its values, `offset` into a row of `stride` values.
template <class T>
std::vector<T*> frame_pointers(const PackedOrder& order, T* values, int64_t stride, int64_t offset) {
  std::vector<T*> pointers(order.frames.size());
  for (size_t p = 0; p < pointers.size(); ++p) pointers[p] = values + order.frames[p] * stride + offset;
  return pointers;
}

// The same in the order of the reverse direction: by step, then by row.
template <class T>
std::vector<T*> reversed_pointers(const PackedOrder& order, const std::vector<T*>& pointers) {
  std::vector<T*> reversed;
  reversed.reserve(pointers.size());
  for (size_t step = 0; step < order.active.size(); ++step)
    for (int64_t i = 0; i < order.active[step]; ++i)
      reversed.push_back(pointers[order.offsets[order.lengths[i] - 1 - int64_t(step)] + i]);
  return reversed;
}

// The input's frames in packed order, [frames, features]. The input itself if that is their order.
inline Tensor packed_frames(const Tensor& input, const PackedOrder& order, int64_t features) {
  const int64_t frames = int64_t(order.frames.size());
  if (order.identity) return torch::stable::reshape(input, {frames, features});
  Tensor packed = allocate(input, {frames, features});
  const size_t bytes = size_t(features) * input.element_size();
  const char* source = static_cast<const char*>(input.const_data_ptr());
  char* target = static_cast<char*>(packed.mutable_data_ptr());
  for (int64_t p = 0; p < frames; ++p)
    std::memcpy(target + size_t(p) * bytes, source + size_t(order.frames[p]) * bytes, bytes);
  return packed;
}

// The inverse of packed_frames, shaped as the caller's tensor `like`; zeros in the frames that no row reaches.
inline Tensor caller_frames(const Tensor& packed, const PackedOrder& order, const Tensor& like) {
  if (order.identity) return torch::stable::reshape(packed, like.sizes());
  Tensor result = allocate_zeros(like, like.sizes());
  const size_t bytes = size_t(packed.size(1)) * packed.element_size();
  const char* source = static_cast<const char*>(packed.const_data_ptr());
  char* target = static_cast<char*>(result.mutable_data_ptr());
  for (size_t p = 0; p < order.frames.size(); ++p)
    std::memcpy(target + size_t(order.frames[p]) * bytes, source + p * bytes, bytes);
  return result;
}

}  // namespace asrkern
