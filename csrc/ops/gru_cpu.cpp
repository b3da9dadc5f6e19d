#include <tuple>

#include "csrc/ops/recurrent_cpu.h"

namespace asrkern {
namespace {

template <class T, class W, class Kernels>
RecurrentResult gru_forward(const RecurrentLayer& layer, const Kernels& kernels,
                            typename cpu::Kernels<T>::template LinearKernel<W> linear, const std::optional<Tensor>& h0,
                            const Biases& bias_ih, const Biases& bias_hh, bool save_reserve) {
  // bias_hh's r and z parts are plain sums with bias_ih's; its n part stays inside the reset gate's product.
  const int64_t summed = 2 * layer.size;
  return recurrent_forward<cpu::GruCell<T, W>>(layer, kernels, linear, h0, bias_ih, bias_hh, summed, save_reserve,
                                               [&](int d, const cpu::RecurrentForward<T, W>& pass) {
                                                 return cpu::GruForward<T, W>{
                                                     pass, bias_hh[d] ? data<T>(*bias_hh[d]) + summed : nullptr};
                                               });
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
  check_layer(
      input, lengths, batch_sizes, batch_first, 3,
      {{&weight_ih, &weight_hh, pointer(bias_ih), pointer(bias_hh)},
       {pointer(weight_ih_reverse), pointer(weight_hh_reverse), pointer(bias_ih_reverse), pointer(bias_hh_reverse)}});
  const RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                             batch_first);
  const Biases b_ih = {dense(bias_ih), dense(bias_ih_reverse)}, b_hh = {dense(bias_hh), dense(bias_hh_reverse)};
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    const auto [output, h_n, reserve] =
        gru_forward<T, T>(layer, kernels.gru, kernels.linear, h0, b_ih, b_hh, save_reserve);
    return std::tuple(output, h_n, reserve);
  });
}

Tensor gru_pack(const Tensor& weight_hh) {
  const cpu::Kernels<float>& kernels = cpu::kernels<float>();
  return pack_weight(weight_hh, 3, kernels.gru, kernels.gru_bf16, kernels.gru_int8);
}

std::tuple<Tensor, Tensor> gru_prepacked(
    const Tensor& input, const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const std::optional<Tensor>& h0, const Tensor& weight_ih, const std::optional<Tensor>& scale_ih,
    const Tensor& packed_hh, const std::optional<Tensor>& scale_hh, const std::optional<Tensor>& bias_ih,
    const std::optional<Tensor>& bias_hh, const std::optional<Tensor>& weight_ih_reverse,
    const std::optional<Tensor>& scale_ih_reverse, const std::optional<Tensor>& packed_hh_reverse,
    const std::optional<Tensor>& scale_hh_reverse, const std::optional<Tensor>& bias_ih_reverse,
    const std::optional<Tensor>& bias_hh_reverse, bool batch_first) {
  const RecurrentLayer layer = prepacked_layer(input, lengths, batch_sizes, weight_ih, scale_ih, packed_hh, scale_hh,
                                               bias_ih, bias_hh, weight_ih_reverse, scale_ih_reverse, packed_hh_reverse,
                                               scale_hh_reverse, bias_ih_reverse, bias_hh_reverse, batch_first, 3);
  const Biases b_ih = {dense(bias_ih), dense(bias_ih_reverse)}, b_hh = {dense(bias_hh), dense(bias_hh_reverse)};
  const cpu::Kernels<float>& all = cpu::kernels<float>();
  return with_weight_type(
      packed_hh, all.gru, all.gru_bf16, all.gru_int8, [&](auto type, const auto& kernels, auto linear) {
        using W = decltype(type);
        check_packed(layer, kernels);
        const auto [output, h_n, reserve] = gru_forward<float, W>(layer, kernels, linear, h0, b_ih, b_hh, false);
        return std::tuple(output, h_n);
      });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> gru_backward(
    const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& input, const std::optional<Tensor>& lengths,
    const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0, const Tensor& weight_ih,
    const Tensor& weight_hh, const std::optional<Tensor>& weight_ih_reverse,
    const std::optional<Tensor>& weight_hh_reverse, const Tensor& output, const Tensor& reserve, bool batch_first) {
  check_layer(input, lengths, batch_sizes, batch_first, 3,
              {{&weight_ih, &weight_hh}, {pointer(weight_ih_reverse), pointer(weight_hh_reverse)}});
  const RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                             batch_first);
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const RecurrentGradients grads =
        recurrent_backward<cpu::GruCell<T>>(layer, cpu::kernels<T>().gru, grad_output, grad_h_n, h0, output, reserve,
                                            [](int, const cpu::RecurrentBackward<T>& pass) { return pass; });
    return std::tuple(grads.input, grads.h0, grads.weight_ih, grads.weight_hh, grads.bias_ih, grads.bias_hh);
  });
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"gru", &asrkern::gru>(m);
  asrkern::implement<"gru_pack", &asrkern::gru_pack>(m);
  asrkern::implement<"gru_prepacked", &asrkern::gru_prepacked>(m);
  asrkern::implement<"gru_backward", &asrkern::gru_backward>(m);
}
