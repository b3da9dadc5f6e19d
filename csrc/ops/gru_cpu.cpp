#include <tuple>

#include "csrc/ops/recurrent_cpu.h"

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
  const RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                             batch_first);
  const Biases b_ih = {dense(bias_ih), dense(bias_ih_reverse)}, b_hh = {dense(bias_hh), dense(bias_hh_reverse)};
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    // b_hh's r and z parts are plain sums with b_ih's; its n part stays inside the reset gate's product.
    const int64_t summed = 2 * layer.size;
    const auto [output, h_n, reserve] = recurrent_forward<cpu::GruCell<T>>(
        layer, cpu::kernels<T>().gru, cpu::kernels<T>().linear, h0, b_ih, b_hh, summed, save_reserve,
        [&](int d, const cpu::RecurrentForward<T, T>& pass) {
          return cpu::GruForward<T>{pass, b_hh[d] ? data<T>(*b_hh[d]) + summed : nullptr};
        });
    return std::tuple(output, h_n, reserve);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> gru_backward(
    const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& input, const std::optional<Tensor>& lengths,
    const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0, const Tensor& weight_ih,
    const Tensor& weight_hh, const std::optional<Tensor>& weight_ih_reverse,
    const std::optional<Tensor>& weight_hh_reverse, const Tensor& output, const Tensor& reserve, bool batch_first) {
  const RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                             batch_first);
  const int64_t frames = int64_t(layer.order.frames.size());
  const Tensor gates_x = new_output(input, {frames, layer.directions * layer.gates});
  const Tensor gates_h = new_output(input, {frames, layer.directions * layer.gates});
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const RecurrentGradients grads = recurrent_backward<cpu::GruCell<T>>(
        layer, cpu::kernels<T>().gru, grad_output, grad_h_n, h0, output, reserve, gates_x, gates_h,
        [](int, const cpu::RecurrentBackward<T>& pass) { return pass; });
    return std::tuple(grads.input, grads.h0, grads.weight_ih, grads.weight_hh, grads.bias_ih,
                      bias_gradient(layer, gates_h));
  });
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  m.impl("gru", TORCH_BOX(&asrkern::gru));
  m.impl("gru_backward", TORCH_BOX(&asrkern::gru_backward));
}
