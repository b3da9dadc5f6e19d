#include <tuple>

#include "csrc/ops/recurrent_cpu.h"

namespace asrkern {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm(
    const Tensor& input, const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const std::optional<Tensor>& h0, const std::optional<Tensor>& c0, const Tensor& weight_ih, const Tensor& weight_hh,
    const std::optional<Tensor>& bias_ih, const std::optional<Tensor>& bias_hh,
    const std::optional<Tensor>& weight_ih_reverse, const std::optional<Tensor>& weight_hh_reverse,
    const std::optional<Tensor>& bias_ih_reverse, const std::optional<Tensor>& bias_hh_reverse, bool batch_first,
    bool save_reserve) {
  const RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                             batch_first);
  const Biases b_ih = {dense(bias_ih), dense(bias_ih_reverse)}, b_hh = {dense(bias_hh), dense(bias_hh_reverse)};
  Tensor c = sorted_states(input, c0, layer.order, layer.directions, layer.size);
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const auto [output, h_n, reserve] = recurrent_forward<cpu::LstmCell<T>>(
        layer, cpu::kernels<T>().lstm, cpu::kernels<T>().linear, h0, b_ih, b_hh, layer.gates, save_reserve,
        [&](int d, const cpu::RecurrentForward<T, T>& pass) {
          return cpu::LstmForward<T>{pass, mutable_data<T>(c) + d * layer.rows * layer.size};
        });
    return std::tuple(output, h_n, caller_states(c, layer.order), reserve);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward(
    const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& grad_c_n, const Tensor& input,
    const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0,
    const std::optional<Tensor>& c0, const Tensor& weight_ih, const Tensor& weight_hh,
    const std::optional<Tensor>& weight_ih_reverse, const std::optional<Tensor>& weight_hh_reverse,
    const Tensor& output, const Tensor& reserve, bool batch_first) {
  const RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                             batch_first);
  const Tensor initial_c = sorted_states(input, c0, layer.order, layer.directions, layer.size);
  Tensor grad_c = sorted_states(input, grad_c_n, layer.order, layer.directions, layer.size);
  const Tensor gates = new_output(input, {int64_t(layer.order.frames.size()), layer.directions * layer.gates});
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const RecurrentGradients grads = recurrent_backward<cpu::LstmCell<T>>(
        layer, cpu::kernels<T>().lstm, grad_output, grad_h_n, h0, output, reserve, gates, gates,
        [&](int d, const cpu::RecurrentBackward<T>& pass) {
          const int64_t first = d * layer.rows * layer.size;
          return cpu::LstmBackward<T>{pass, data<T>(initial_c) + first, mutable_data<T>(grad_c) + first};
        });
    // Both biases have the same gradient, but outputs may not share memory.
    return std::tuple(grads.input, grads.h0, caller_states(grad_c, layer.order), grads.weight_ih, grads.weight_hh,
                      grads.bias_ih, torch::stable::clone(grads.bias_ih));
  });
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  m.impl("lstm", TORCH_BOX(&asrkern::lstm));
  m.impl("lstm_backward", TORCH_BOX(&asrkern::lstm_backward));
}
