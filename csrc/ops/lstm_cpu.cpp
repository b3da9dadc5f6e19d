#include <tuple>

#include "csrc/ops/recurrent_cpu.h"

namespace asrkern {
namespace {

template <class T, class W, class Kernels>
std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_forward(const RecurrentLayer& layer, const Kernels& kernels,
                                                        const cpu::LinearKernels<T, W>& linear,
                                                        const std::optional<Tensor>& h0,
                                                        const std::optional<Tensor>& c0, const Biases& bias_ih,
                                                        const Biases& bias_hh, bool save_reserve) {
  Tensor c = sorted_states("c0", layer.input, c0, layer.order, layer.directions, layer.size);
  const auto [output, h_n, reserve] = recurrent_forward<cpu::LstmCell<T, W>>(
      layer, kernels, linear, h0, bias_ih, bias_hh, layer.gates, save_reserve,
      [&](int d, const cpu::RecurrentForward<T, W>& pass) {
        return cpu::LstmForward<T, W>{pass, mutable_data<T>(c) + d * layer.rows * layer.size};
      });
  return {output, h_n, caller_states(c, layer.order), reserve};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm(
    const Tensor& input, const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const std::optional<Tensor>& h0, const std::optional<Tensor>& c0, const Tensor& weight_ih, const Tensor& weight_hh,
    const std::optional<Tensor>& bias_ih, const std::optional<Tensor>& bias_hh,
    const std::optional<Tensor>& weight_ih_reverse, const std::optional<Tensor>& weight_hh_reverse,
    const std::optional<Tensor>& bias_ih_reverse, const std::optional<Tensor>& bias_hh_reverse, bool batch_first,
    bool save_reserve) {
  check_layer(
      input, lengths, batch_sizes, batch_first, 4,
      {{&weight_ih, &weight_hh, pointer(bias_ih), pointer(bias_hh)},
       {pointer(weight_ih_reverse), pointer(weight_hh_reverse), pointer(bias_ih_reverse), pointer(bias_hh_reverse)}});
  const RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                             batch_first);
  const Biases b_ih = {dense(bias_ih), dense(bias_ih_reverse)}, b_hh = {dense(bias_hh), dense(bias_hh_reverse)};
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    return lstm_forward<T, T>(layer, kernels.lstm, kernels.linear, h0, c0, b_ih, b_hh, save_reserve);
  });
}

auto kernels_by_weight() {
  const cpu::Kernels<float>& all = cpu::kernels<float>();
  return KernelsByWeight{all.lstm, all.lstm_bf16, all.lstm_int8, cpu::int8_kernels().lstm};
}

Tensor lstm_pack(const Tensor& weight_hh, bool int8_activations) {
  return pack_weight(weight_hh, int8_activations, 4, kernels_by_weight());
}

std::tuple<Tensor, Tensor, Tensor> lstm_prepacked(
    const Tensor& input, const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const std::optional<Tensor>& h0, const std::optional<Tensor>& c0, const Tensor& weight_ih,
    const std::optional<Tensor>& scale_ih, const Tensor& packed_hh, const std::optional<Tensor>& scale_hh,
    const std::optional<Tensor>& bias_ih, const std::optional<Tensor>& bias_hh,
    const std::optional<Tensor>& weight_ih_reverse, const std::optional<Tensor>& scale_ih_reverse,
    const std::optional<Tensor>& packed_hh_reverse, const std::optional<Tensor>& scale_hh_reverse,
    const std::optional<Tensor>& bias_ih_reverse, const std::optional<Tensor>& bias_hh_reverse, bool batch_first,
    bool int8_activations) {
  const RecurrentLayer layer = prepacked_layer(input, lengths, batch_sizes, weight_ih, scale_ih, packed_hh, scale_hh,
                                               bias_ih, bias_hh, weight_ih_reverse, scale_ih_reverse, packed_hh_reverse,
                                               scale_hh_reverse, bias_ih_reverse, bias_hh_reverse, batch_first, 4);
  const Biases b_ih = {dense(bias_ih), dense(bias_ih_reverse)}, b_hh = {dense(bias_hh), dense(bias_hh_reverse)};
  return with_weight_type(packed_hh, "packed_hh", int8_activations, kernels_by_weight(),
                          [&](auto type, const auto& kernels, auto linear) {
                            using W = decltype(type);
                            check_packed(layer, kernels);
                            if (int8_activations) check_dot_features("input", std::max(layer.features, layer.size));
                            const auto [output, h_n, c_n, reserve] =
                                lstm_forward<float, W>(layer, kernels, linear, h0, c0, b_ih, b_hh, false);
                            return std::tuple(output, h_n, c_n);
                          });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward(
    const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& grad_c_n, const Tensor& input,
    const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0,
    const std::optional<Tensor>& c0, const Tensor& weight_ih, const Tensor& weight_hh,
    const std::optional<Tensor>& weight_ih_reverse, const std::optional<Tensor>& weight_hh_reverse,
    const Tensor& output, const Tensor& reserve, bool batch_first) {
  check_layer(input, lengths, batch_sizes, batch_first, 4,
              {{&weight_ih, &weight_hh}, {pointer(weight_ih_reverse), pointer(weight_hh_reverse)}});
  const RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                             batch_first);
  const Tensor initial_c = sorted_states("c0", input, c0, layer.order, layer.directions, layer.size);
  Tensor grad_c = sorted_states("grad_c_n", input, grad_c_n, layer.order, layer.directions, layer.size);
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const RecurrentGradients grads = recurrent_backward<cpu::LstmCell<T>>(
        layer, cpu::kernels<T>().lstm, grad_output, grad_h_n, h0, output, reserve,
        [&](int d, const cpu::RecurrentBackward<T>& pass) {
          const int64_t first = d * layer.rows * layer.size;
          return cpu::LstmBackward<T>{pass, data<T>(initial_c) + first, mutable_data<T>(grad_c) + first};
        });
    return std::tuple(grads.input, grads.h0, caller_states(grad_c, layer.order), grads.weight_ih, grads.weight_hh,
                      grads.bias_ih, grads.bias_hh);
  });
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"lstm", &asrkern::lstm>(m);
  asrkern::implement<"lstm_pack", &asrkern::lstm_pack>(m);
  asrkern::implement<"lstm_prepacked", &asrkern::lstm_prepacked>(m);
  asrkern::implement<"lstm_backward", &asrkern::lstm_backward>(m);
}
