#include <algorithm>
#include <tuple>

#include "csrc/ops/packed_order.h"

namespace asrkern {
namespace {

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
  const cpu::RecurrentBatch batch = order.batch();
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
    Tensor scratch_ih = torch::stable::new_empty(input, {kernels.linear_scratch_size(pool, features)});
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
      kernels.linear(pool, inputs.data(), batch.frames, data<T>(w_ih[d]), nullptr, bias_n ? bias.data() : nullptr,
                     3 * size, features, gate_rows.data(), mutable_data<T>(scratch_ih));
      T* packed = mutable_data<T>(packed_hh) + d * packed_size;
      kernels.gru_pack(pool, data<T>(w_hh[d]), size, packed);
      outputs[d] = frame_pointers(order, mutable_data<T>(output), width, d * size);
      passes.push_back({{d == 1, size, gates, packed, data<T>(initial) + d * batch.rows * size,
                         mutable_data<T>(states) + d * 2 * batch.rows * size, outputs[d].data(),
                         mutable_data<T>(final_states) + d * batch.rows * size,
                         save_reserve ? mutable_data<T>(reserve) + d * frames * 4 * size : nullptr, nullptr},
                        bias_n});
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

Tensor transposed(const Tensor& matrix) { return torch::stable::transpose(matrix, 0, 1); }

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> gru_backward(
    const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& input, const std::optional<Tensor>& lengths,
    const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0, const Tensor& weight_ih,
    const Tensor& weight_hh, const std::optional<Tensor>& weight_ih_reverse,
    const std::optional<Tensor>& weight_hh_reverse, const Tensor& output, const Tensor& reserve, bool batch_first) {
  const PackedOrder order = make_order(input, lengths, batch_sizes, batch_first);
  const cpu::RecurrentBatch batch = order.batch();
  const int directions = weight_hh_reverse ? 2 : 1;
  const int64_t size = weight_hh.size(1), features = weight_ih.size(1), width = directions * size;
  const int64_t frames = reserve.size(1);
  const Tensor x = dense(input), dy = dense(grad_output), y = dense(output), saved = dense(reserve);
  const Tensor w_ih[2] = {dense(weight_ih), dense(weight_ih_reverse.value_or(weight_ih))};
  const Tensor w_hh[2] = {dense(weight_hh), dense(weight_hh_reverse.value_or(weight_hh))};
  const Tensor initial = sorted_states(input, h0, order, directions, size);
  Tensor grad_h = sorted_states(input, grad_h_n, order, directions, size);
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
      kernels.linear_pack(pool, data<T>(w_hh[d]), true, size, 3 * size, weight);
      outputs[d] = frame_pointers(order, data<T>(y), width, d * size);
      grads[d] = frame_pointers(order, data<T>(dy), width, d * size);
      passes.push_back(
          {{d == 1, size, weight, data<T>(initial) + d * batch.rows * size, outputs[d].data(), grads[d].data(),
            data<T>(saved) + d * frames * 4 * size, mutable_data<T>(grad_h) + d * batch.rows * size,
            mutable_data<T>(gates_h) + d * batch.frames * 3 * size, 3 * size,
            mutable_data<T>(previous) + d * batch.frames * size},
           mutable_data<T>(gates_x) + d * 3 * size,
           directions * 3 * size});
    }
    std::vector<const T*> gates((pool.threads + directions) * batch.rows);
    std::vector<T*> states(gates.size());
    kernels.gru_backward(pool, batch, passes.data(), directions, gates.data(), states.data());
  });

  // One matrix product over all steps for each weight, in place of one a step.
  const Tensor grad_w_ih = torch::stable::matmul(transposed(gates_x), packed_frames(x, order, features));
  const Tensor grad_w_hh = torch::stable::matmul(torch::stable::transpose(gates_h, 1, 2), previous);
  const Tensor dx = torch::stable::matmul(gates_x, all_w_ih);
  const int64_t along_x[] = {0}, along_h[] = {1};
  return {caller_frames(dx, order, input),
          caller_states(grad_h, order),
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
