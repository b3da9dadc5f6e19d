// What the recurrent operations share around their kernels: forward and backward of one layer, given its cell.
#pragma once

#include "csrc/ops/packed_order.h"

namespace asrkern {

// A layer as it was called: its batch in packed order, its input and weights dense.
struct RecurrentLayer {
  // With `packed_size` units, weight_hh is already what the cell's kernel packs, and gates are weight_ih's rows.
  RecurrentLayer(const Tensor& input, const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
                 const Tensor& weight_ih, const Tensor& weight_hh, const std::optional<Tensor>& weight_ih_reverse,
                 const std::optional<Tensor>& weight_hh_reverse, bool batch_first,
                 std::optional<int64_t> packed_size = std::nullopt)
      : order(make_order(input, lengths, batch_sizes, batch_first)),
        input(dense(input)),
        weight_ih{dense(weight_ih), dense(weight_ih_reverse.value_or(weight_ih))},
        weight_hh{dense(weight_hh), dense(weight_hh_reverse.value_or(weight_hh))},
        packed(packed_size.has_value()),
        directions(weight_hh_reverse ? 2 : 1),
        size(packed_size ? *packed_size : weight_hh.size(1)),
        gates(weight_ih.size(0)),
        features(weight_ih.size(1)),
        rows(int64_t(order.rows.size())) {}

  PackedOrder order;
  Tensor input, weight_ih[2], weight_hh[2];
  std::optional<Tensor> scale_ih[2], scale_hh[2];  // of quantised weights: [gates] a direction
  bool packed;
  int directions;
  int64_t size, gates, features, rows;  // gates: those of all units
};

// The biases of each direction, dense.
using Biases = std::optional<Tensor>[2];

struct RecurrentResult {
  Tensor output, h_n, reserve;
};

// cell, linear: the kernels for Cell and for its input projection, by the type of its weights. The first `summed_bias`
// elements of bias_hh join bias_ih in front of the recurrence. complete(d, pass) adds to what
// every cell has what direction d of this one has beside it.
template <class Cell, class Kernels, class Complete>
RecurrentResult recurrent_forward(
    const RecurrentLayer& layer, const Kernels& cell,
    typename cpu::Kernels<typename Cell::Value>::template Linear<typename Cell::Weight> linear,
    const std::optional<Tensor>& h0, const Biases& bias_ih, const Biases& bias_hh, int64_t summed_bias,
    bool save_reserve, const Complete& complete) {
  using T = typename Cell::Value;
  using W = typename Cell::Weight;
  const cpu::ThreadPool pool = torch_threads();
  const cpu::Kernels<T>& kernels = cpu::kernels<T>();
  const cpu::RecurrentBatch batch = layer.order.batch();
  const Tensor& input = layer.input;
  const int64_t size = layer.size, gates = layer.gates, features = layer.features;
  const int64_t width = layer.directions * size, saved = Cell::kSaved * size;

  std::vector<int64_t> output_sizes(input.sizes().begin(), input.sizes().end());
  output_sizes.back() = width;
  Tensor output = new_output(input, output_sizes);
  const int64_t frames = output.numel() / (width > 0 ? width : 1);
  Tensor reserve = save_reserve ? new_output(input, {layer.directions, frames, saved}) : new_output(input, {0});
  Tensor h_n = new_output(input, {layer.directions, batch.rows, size});
  const Tensor initial = sorted_states(input, h0, layer.order, layer.directions, size);

  Tensor gates_x = torch::stable::new_empty(input, {layer.directions, batch.frames, gates});
  Tensor states = torch::stable::new_empty(input, {layer.directions, 2, batch.rows, size});
  Tensor scratch_ih = torch::stable::new_empty(input, {kernels.linear_scratch_size(pool, features)});
  const int64_t packed_size = cell.packed_size(size);
  const std::vector<const T*> inputs = frame_pointers(layer.order, data<T>(input), features, 0);
  std::vector<typename Cell::Forward> passes;
  std::vector<T*> outputs[2];
  Tensor packed_hh[2] = {layer.weight_hh[0], layer.weight_hh[1]};
  for (int d = 0; d < layer.directions; ++d) {
    std::vector<T> bias;
    if (bias_ih[d]) {
      bias.assign(data<T>(*bias_ih[d]), data<T>(*bias_ih[d]) + gates);
      for (int64_t j = 0; j < summed_bias; ++j) bias[j] += data<T>(*bias_hh[d])[j];
    }
    T* x = mutable_data<T>(gates_x) + d * batch.frames * gates;
    std::vector<T*> rows_of_x(batch.frames);
    for (int64_t p = 0; p < batch.frames; ++p) rows_of_x[p] = x + p * gates;
    linear(pool, inputs.data(), batch.frames, data<W>(layer.weight_ih[d]), data_or_null<T>(layer.scale_ih[d]),
           bias_ih[d] ? bias.data() : nullptr, gates, features, rows_of_x.data(), mutable_data<T>(scratch_ih));
    if (!layer.packed) {
      packed_hh[d] = torch::stable::new_empty(layer.weight_hh[d], {packed_size});
      cell.pack(pool, data<W>(layer.weight_hh[d]), size, mutable_data<W>(packed_hh[d]));
    }
    outputs[d] = frame_pointers(layer.order, mutable_data<T>(output), width, d * size);
    passes.push_back(complete(
        d, cpu::RecurrentForward<T, W>{d == 1, size, x, data<W>(packed_hh[d]), data<T>(initial) + d * batch.rows * size,
                                       mutable_data<T>(states) + d * 2 * batch.rows * size, outputs[d].data(),
                                       mutable_data<T>(h_n) + d * batch.rows * size,
                                       save_reserve ? mutable_data<T>(reserve) + d * frames * saved : nullptr,
                                       data_or_null<T>(layer.scale_hh[d])}));
  }
  std::vector<int64_t> scratch((pool.threads + layer.directions) * batch.rows);
  cell.forward(pool, batch, passes.data(), layer.directions, scratch.data());
  zero_padding(layer.order, frames, width, mutable_data<T>(output));
  if (save_reserve)
    for (int d = 0; d < layer.directions; ++d)
      std::fill(mutable_data<T>(reserve) + (d * frames + batch.frames) * saved,
                mutable_data<T>(reserve) + (d + 1) * frames * saved, T(0));
  return {output, caller_states(h_n, layer.order), reserve};
}

// gates: [frames, directions·gates] → [directions, gates]
inline Tensor bias_gradient(const RecurrentLayer& layer, const Tensor& gates) {
  const int64_t along_frames[] = {0};
  return torch::stable::reshape(torch::stable::sum(gates, along_frames), {layer.directions, layer.gates});
}

struct RecurrentGradients {
  Tensor input, h0, weight_ih, weight_hh, bias_ih;
};

// gates_x, gates_h: [frames, directions·gates], which receive the gradients of W_ih x + b_ih and of W_hh h; one tensor
// twice where these are the same.
template <class Cell, class Kernels, class Complete>
RecurrentGradients recurrent_backward(const RecurrentLayer& layer, const Kernels& cell, const Tensor& grad_output,
                                      const Tensor& grad_h_n, const std::optional<Tensor>& h0, const Tensor& output,
                                      const Tensor& reserve, Tensor gates_x, Tensor gates_h, const Complete& complete) {
  using T = typename Cell::Value;
  const cpu::ThreadPool pool = torch_threads();
  const cpu::Kernels<T>& kernels = cpu::kernels<T>();
  const cpu::RecurrentBatch batch = layer.order.batch();
  const Tensor& input = layer.input;
  const int64_t size = layer.size, gates = layer.gates, features = layer.features;
  const int64_t width = layer.directions * size, all_gates = layer.directions * gates;
  const int64_t frames = reserve.size(1), saved = Cell::kSaved * size;
  const Tensor dy = dense(grad_output), y = dense(output), kept = dense(reserve);
  const Tensor initial = sorted_states(input, h0, layer.order, layer.directions, size);
  Tensor grad_h = sorted_states(input, grad_h_n, layer.order, layer.directions, size);
  Tensor previous = new_output(input, {layer.directions, batch.frames, size});
  Tensor weight_ih = new_output(input, {all_gates, features});
  const int64_t packed_size = kernels.linear_packed_size(size, gates);
  Tensor packed = torch::stable::new_empty(input, {layer.directions, packed_size});
  std::vector<typename Cell::Backward> passes;
  std::vector<const T*> outputs[2], grads[2];
  for (int d = 0; d < layer.directions; ++d) {
    std::memcpy(mutable_data<T>(weight_ih) + d * gates * features, data<T>(layer.weight_ih[d]),
                size_t(gates * features) * sizeof(T));
    T* weight = mutable_data<T>(packed) + d * packed_size;
    kernels.linear_pack(pool, data<T>(layer.weight_hh[d]), true, size, gates, weight);
    outputs[d] = frame_pointers(layer.order, data<T>(y), width, d * size);
    grads[d] = frame_pointers(layer.order, data<T>(dy), width, d * size);
    passes.push_back(complete(
        d, cpu::RecurrentBackward<T>{
               d == 1, size, weight, data<T>(initial) + d * batch.rows * size, outputs[d].data(), grads[d].data(),
               data<T>(kept) + d * frames * saved, mutable_data<T>(grad_h) + d * batch.rows * size,
               mutable_data<T>(previous) + d * batch.frames * size, mutable_data<T>(gates_h) + d * gates,
               mutable_data<T>(gates_x) + d * gates, all_gates}));
  }
  std::vector<const T*> gate_rows((pool.threads + layer.directions) * batch.rows);
  std::vector<T*> states(gate_rows.size());
  cell.backward(pool, batch, passes.data(), layer.directions, gate_rows.data(), states.data());

  // One matrix product over all steps for each weight, in place of one a step.
  using torch::stable::matmul, torch::stable::reshape, torch::stable::transpose;
  const Tensor of_direction = transpose(reshape(gates_h, {batch.frames, layer.directions, gates}), 0, 1);
  return {caller_frames(matmul(gates_x, weight_ih), layer.order, input), caller_states(grad_h, layer.order),
          reshape(matmul(transpose(gates_x, 0, 1), packed_frames(input, layer.order, features)),
                  {layer.directions, gates, features}),
          matmul(transpose(of_direction, 1, 2), previous), bias_gradient(layer, gates_x)};
}

}  // namespace asrkern
