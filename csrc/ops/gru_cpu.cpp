#include <algorithm>
#include <numeric>
#include <tuple>

#include "csrc/ops/common.h"

namespace asrkern {
namespace {

// The batch in packed order, and where each of its frames is in the caller's tensors.
struct PackedOrder {
  std::vector<int64_t> active, offsets, lengths;  // as in cpu::GruBatch; rows sorted, longest first
  std::vector<int64_t> rows;                      // [rows] the caller's row of each sorted row
  std::vector<int64_t> frames;                    // [frames] the caller's frame of each packed frame
  bool identity = true;                           // frames[p] == p for all of the caller's frames

  cpu::GruBatch batch() const {
    return {int64_t(lengths.size()), int64_t(active.size()), int64_t(frames.size()),
            active.data(),           offsets.data(),         lengths.data()};
  }
};

PackedOrder order_by_batch_sizes(const Tensor& batch_sizes, int64_t frames) {
  const Tensor values = dense(batch_sizes);
  const int64_t* sizes = data<int64_t>(values);
  PackedOrder order;
  int64_t total = 0;
  for (int64_t t = 0; t < values.numel(); ++t) {
    if (sizes[t] < 1 || (t > 0 && sizes[t] > sizes[t - 1]))
      invalid("batch_sizes: expected positive values that never grow, received ", sizes[t], " at step ", t);
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

PackedOrder order_by_lengths(const std::optional<Tensor>& lengths, int64_t rows, int64_t steps, bool batch_first) {
  PackedOrder order;
  const std::vector<int64_t> values =
      lengths ? read_lengths(*lengths, "lengths", rows, steps) : std::vector<int64_t>(rows, steps);
  order.rows.resize(rows);
  std::iota(order.rows.begin(), order.rows.end(), 0);
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

PackedOrder make_order(const Tensor& input, const std::optional<Tensor>& lengths,
                       const std::optional<Tensor>& batch_sizes, bool batch_first) {
  if (batch_sizes) return order_by_batch_sizes(*batch_sizes, input.size(0));
  return order_by_lengths(lengths, input.size(batch_first ? 0 : 1), input.size(batch_first ? 1 : 0), batch_first);
}

// [directions, rows, hidden_size] in sorted order; zeros where there is no h0.
Tensor sorted_states(const Tensor& like, const std::optional<Tensor>& states, const PackedOrder& order,
                     int64_t directions, int64_t hidden_size) {
  const int64_t rows = int64_t(order.rows.size());
  Tensor sorted = torch::stable::new_zeros(like, {directions, rows, hidden_size});
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
Tensor caller_states(const Tensor& sorted, const PackedOrder& order) {
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

// Zero the frames of an output that no row reaches.
template <class T>
void zero_padding(const PackedOrder& order, int64_t frames, int64_t width, T* values) {
  if (int64_t(order.frames.size()) == frames) return;
  std::vector<bool> reached(frames, false);
  for (int64_t frame : order.frames) reached[frame] = true;
  for (int64_t frame = 0; frame < frames; ++frame)
    if (!reached[frame]) std::fill_n(values + frame * width, width, T(0));
}

// A pointer to each packed frame's values within rows of `stride`, `offset` in.
template <class T>
std::vector<T*> frame_pointers(const PackedOrder& order, T* values, int64_t stride, int64_t offset) {
  std::vector<T*> pointers(order.frames.size());
  for (size_t p = 0; p < pointers.size(); ++p) pointers[p] = values + order.frames[p] * stride + offset;
  return pointers;
}

std::tuple<Tensor, Tensor, Tensor> gru(const Tensor& input, const std::optional<Tensor>& lengths,
                                       const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0,
                                       const Tensor& weight_ih, const Tensor& weight_hh,
                                       const std::optional<Tensor>& bias_ih, const std::optional<Tensor>& bias_hh,
                                       const std::optional<Tensor>& weight_ih_reverse,
                                       const std::optional<Tensor>& weight_hh_reverse,
                                       const std::optional<Tensor>& bias_ih_reverse,
                                       const std::optional<Tensor>& bias_hh_reverse, bool batch_first,
                                       bool save_reserve) {
  const PackedOrder order = make_order(input, lengths, batch_sizes, batch_first);
  const cpu::GruBatch batch = order.batch();
  const int directions = weight_hh_reverse ? 2 : 1;
  const int64_t size = weight_hh.size(1), features = weight_ih.size(1), width = directions * size;
  const Tensor x = dense(input);
  const Tensor w_ih[2] = {dense(weight_ih), dense(weight_ih_reverse.value_or(weight_ih))};
  const Tensor w_hh[2] = {dense(weight_hh), dense(weight_hh_reverse.value_or(weight_hh))};
  const std::optional<Tensor> b_ih[2] = {dense(bias_ih), dense(bias_ih_reverse)};
  const std::optional<Tensor> b_hh[2] = {dense(bias_hh), dense(bias_hh_reverse)};

  std::vector<int64_t> output_sizes(input.sizes().begin(), input.sizes().end());
  output_sizes.back() = width;
  Tensor output = new_output(input, output_sizes);
  const int64_t frames = output.numel() / (width > 0 ? width : 1);
  Tensor reserve = save_reserve ? new_output(input, {directions, frames, 4 * size}) : new_output(input, {0});
  const Tensor initial = sorted_states(input, h0, order, directions, size);
  Tensor final_states = new_output(input, {directions, batch.rows, size});

  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::ThreadPool pool = torch_threads();
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    const std::vector<const T*> inputs = frame_pointers(order, data<T>(x), features, 0);
    Tensor gates_x = torch::stable::new_empty(input, {directions, batch.frames, 3 * size});
    Tensor states = torch::stable::new_empty(input, {directions, 2, batch.rows, size});
    Tensor packed_ih = torch::stable::new_empty(input, {kernels.linear_packed_size(3 * size, features)});
    const int64_t packed_size = kernels.gru_packed_size(size);
    Tensor packed_hh = torch::stable::new_empty(input, {directions, packed_size});
    std::vector<cpu::GruForward<T>> passes;
    std::vector<T*> outputs[2];
    for (int d = 0; d < directions; ++d) {
      // b_hh's r and z parts are plain sums with b_ih's; its n part stays inside the reset gate's product.
      std::vector<T> bias;
      const T* bias_n = nullptr;
      if (b_ih[d]) {
        bias.assign(data<T>(*b_ih[d]), data<T>(*b_ih[d]) + 3 * size);
        for (int64_t j = 0; j < 2 * size; ++j) bias[j] += data<T>(*b_hh[d])[j];
        bias_n = data<T>(*b_hh[d]) + 2 * size;
      }
      T* gates = mutable_data<T>(gates_x) + d * batch.frames * 3 * size;
      std::vector<T*> gate_rows(batch.frames);
      for (int64_t p = 0; p < batch.frames; ++p) gate_rows[p] = gates + p * 3 * size;
      kernels.linear_pack(pool, data<T>(w_ih[d]), features, 1, 3 * size, features, mutable_data<T>(packed_ih));
      kernels.linear(pool, inputs.data(), batch.frames, data<T>(packed_ih), bias_n ? bias.data() : nullptr, 3 * size,
                     features, gate_rows.data());
      T* packed = mutable_data<T>(packed_hh) + d * packed_size;
      kernels.gru_pack(pool, data<T>(w_hh[d]), size, packed);
      outputs[d] = frame_pointers(order, mutable_data<T>(output), width, d * size);
      passes.push_back({d == 1, size, gates, packed, bias_n, data<T>(initial) + d * batch.rows * size,
                        mutable_data<T>(states) + d * 2 * batch.rows * size, outputs[d].data(),
                        mutable_data<T>(final_states) + d * batch.rows * size,
                        save_reserve ? mutable_data<T>(reserve) + d * frames * 4 * size : nullptr});
    }
    std::vector<int64_t> scratch((pool.threads + directions) * batch.rows);
    kernels.gru_forward(pool, batch, passes.data(), directions, scratch.data());
    zero_padding(order, frames, width, mutable_data<T>(output));
    if (save_reserve)
      for (int d = 0; d < directions; ++d)
        std::fill(mutable_data<T>(reserve) + (d * frames + batch.frames) * 4 * size,
                  mutable_data<T>(reserve) + (d + 1) * frames * 4 * size, T(0));
  });
  return {output, caller_states(final_states, order), reserve};
}

// The input's frames in packed order, [frames, features]: the input itself where they are already.
Tensor packed_frames(const Tensor& input, const PackedOrder& order, int64_t features) {
  const int64_t frames = int64_t(order.frames.size());
  if (order.identity) return torch::stable::reshape(input, {frames, features});
  Tensor packed = torch::stable::new_empty(input, {frames, features});
  const size_t bytes = size_t(features) * input.element_size();
  const char* source = static_cast<const char*>(input.const_data_ptr());
  char* target = static_cast<char*>(packed.mutable_data_ptr());
  for (int64_t p = 0; p < frames; ++p)
    std::memcpy(target + size_t(p) * bytes, source + size_t(order.frames[p]) * bytes, bytes);
  return packed;
}

Tensor transposed(const Tensor& matrix) { return torch::stable::transpose(matrix, 0, 1); }

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> gru_backward(
    const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& input, const std::optional<Tensor>& lengths,
    const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0, const Tensor& weight_ih,
    const Tensor& weight_hh, const std::optional<Tensor>& weight_ih_reverse,
    const std::optional<Tensor>& weight_hh_reverse, const Tensor& output, const Tensor& reserve, bool batch_first) {
  const PackedOrder order = make_order(input, lengths, batch_sizes, batch_first);
  const cpu::GruBatch batch = order.batch();
  const int directions = weight_hh_reverse ? 2 : 1;
  const int64_t size = weight_hh.size(1), features = weight_ih.size(1), width = directions * size;
  const int64_t frames = reserve.size(1);
  const Tensor x = dense(input), dy = dense(grad_output), y = dense(output), saved = dense(reserve);
  const Tensor w_ih[2] = {dense(weight_ih), dense(weight_ih_reverse.value_or(weight_ih))};
  const Tensor w_hh[2] = {dense(weight_hh), dense(weight_hh_reverse.value_or(weight_hh))};
  const Tensor initial = sorted_states(input, h0, order, directions, size);
  const Tensor dh_n = sorted_states(input, grad_h_n, order, directions, size);
  Tensor dh0 = new_output(input, {directions, batch.rows, size});
  Tensor gates_x = new_output(input, {batch.frames, directions * 3 * size});
  Tensor gates_h = new_output(input, {directions, batch.frames, 3 * size});
  Tensor previous = new_output(input, {directions, batch.frames, size});
  Tensor all_w_ih = new_output(input, {directions * 3 * size, features});

  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::ThreadPool pool = torch_threads();
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    const int64_t packed_size = kernels.linear_packed_size(size, 3 * size);
    Tensor packed = torch::stable::new_empty(input, {directions, packed_size});
    std::vector<cpu::GruBackward<T>> passes;
    std::vector<const T*> outputs[2], grads[2];
    for (int d = 0; d < directions; ++d) {
      std::memcpy(mutable_data<T>(all_w_ih) + d * 3 * size * features, data<T>(w_ih[d]),
                  size_t(3 * size * features) * sizeof(T));
      T* weight = mutable_data<T>(packed) + d * packed_size;
      kernels.linear_pack(pool, data<T>(w_hh[d]), 1, size, size, 3 * size, weight);
      outputs[d] = frame_pointers(order, data<T>(y), width, d * size);
      grads[d] = frame_pointers(order, data<T>(dy), width, d * size);
      passes.push_back({d == 1, size, weight, data<T>(initial) + d * batch.rows * size, outputs[d].data(),
                        grads[d].data(), data<T>(dh_n) + d * batch.rows * size, data<T>(saved) + d * frames * 4 * size,
                        mutable_data<T>(gates_x) + d * 3 * size, directions * 3 * size,
                        mutable_data<T>(gates_h) + d * batch.frames * 3 * size,
                        mutable_data<T>(previous) + d * batch.frames * size,
                        mutable_data<T>(dh0) + d * batch.rows * size});
    }
    std::vector<const T*> gates((pool.threads + directions) * batch.rows);
    std::vector<T*> states(gates.size());
    kernels.gru_backward(pool, batch, passes.data(), directions, gates.data(), states.data());
  });

  // One matrix product over all steps for each weight, in place of one a step.
  const Tensor grad_w_ih = torch::stable::matmul(transposed(gates_x), packed_frames(x, order, features));
  const Tensor grad_w_hh = torch::stable::matmul(torch::stable::transpose(gates_h, 1, 2), previous);
  Tensor dx = torch::stable::matmul(gates_x, all_w_ih);
  if (order.identity) {
    dx = torch::stable::reshape(dx, input.sizes());
  } else {
    Tensor padded = torch::stable::new_zeros(input, input.sizes());
    const size_t bytes = size_t(features) * input.element_size();
    const char* source = static_cast<const char*>(dx.const_data_ptr());
    char* target = static_cast<char*>(padded.mutable_data_ptr());
    for (size_t p = 0; p < order.frames.size(); ++p)
      std::memcpy(target + size_t(order.frames[p]) * bytes, source + p * bytes, bytes);
    dx = padded;
  }
  const int64_t along_x[] = {0}, along_h[] = {1};
  return {dx,
          caller_states(dh0, order),
          torch::stable::reshape(grad_w_ih, {directions, 3 * size, features}),
          grad_w_hh,
          torch::stable::reshape(torch::stable::sum(gates_x, along_x), {directions, 3 * size}),
          torch::stable::sum(gates_h, along_h)};
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  m.impl("gru", TORCH_BOX(&asrkern::gru));
  m.impl("gru_backward", TORCH_BOX(&asrkern::gru_backward));
}
