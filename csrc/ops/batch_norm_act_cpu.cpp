#include <algorithm>
#include <iterator>
#include <tuple>

#include "csrc/ops/common.h"

namespace asrkern {
namespace {

// A layout has a letter for each dimension: N rows, C channels, F inner, T time, R frames of a single row.
constexpr const char* kLayouts[] = {"RC", "NTC", "TNC", "NCT", "NCFT"};

// Checks the arguments that forward and backward have in common.
void check_arguments(const Tensor& input, const std::string& layout, const std::optional<Tensor>& weight,
                     const std::optional<Tensor>& bias, const std::optional<Tensor>& lengths) {
  if (std::find(std::begin(kLayouts), std::end(kLayouts), layout) == std::end(kLayouts))
    invalid("layout: expected one of RC, NTC, TNC, NCT, NCFT, received ", layout);
  check("input", input).dim(layout.size());
  const int64_t channels = input.size(int64_t(layout.find('C')));
  check("weight", weight).dtype(input).shape({channels});
  check("bias", bias).dtype(input).shape({channels});
  if (layout == "RC") check("lengths", lengths).given(false, "with layout RC, which has no rows of frames");
}

struct BatchNormActSizes {
  int64_t batch = 1, channels = 1, inner = 1, time = 1;
  bool time_last, batch_first;

  BatchNormActSizes(const Tensor& input, const std::string& layout)
      : time_last(layout.back() == 'T'), batch_first(layout[0] != 'T') {
    for (size_t d = 0; d < layout.size(); ++d) {
      const int64_t size = input.size(int64_t(d));
      if (layout[d] == 'N') batch = size;
      if (layout[d] == 'C') channels = size;
      if (layout[d] == 'F') inner = size;
      if (layout[d] == 'T' || layout[d] == 'R') time = size;
    }
  }
};

// `lengths` must outlive the shape.
cpu::BatchNormActShape make_shape(const Tensor& input, const std::string& layout,
                                  const std::optional<std::vector<int64_t>>& lengths, bool count_padding) {
  const BatchNormActSizes s(input, layout);
  return {s.batch,      s.channels, s.inner, s.time, s.time_last, s.batch_first, lengths ? lengths->data() : nullptr,
          count_padding};
}

std::optional<std::vector<int64_t>> optional_lengths(const Tensor& input, const std::string& layout,
                                                     const std::optional<Tensor>& lengths) {
  if (!lengths) return std::nullopt;
  return read_lengths(*lengths, "lengths", input.size(int64_t(layout.find('N'))),
                      input.size(int64_t(layout.find('T'))));
}

int64_t pieces(const cpu::BatchNormActShape& s) { return cpu::batch_norm_act_pieces(s); }

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_act(const Tensor& input, const std::optional<Tensor>& weight,
                                                          const std::optional<Tensor>& bias,
                                                          const std::optional<Tensor>& running_mean,
                                                          const std::optional<Tensor>& running_var,
                                                          const std::optional<Tensor>& lengths, std::string layout,
                                                          bool training, bool count_padding, double eps, double min,
                                                          double max) {
  check_arguments(input, layout, weight, bias, lengths);
  const int64_t channels = input.size(int64_t(layout.find('C')));
  for (const auto& [name, statistics] :
       {std::pair("running_mean", &running_mean), std::pair("running_var", &running_var)}) {
    if (!training) check(name, *statistics).given(true, "when not training");
    check(name, *statistics).dtype(input).shape({channels});
  }
  const bool empty = input.numel() == 0;
  if (training && empty)
    invalid("input: expected at least one value in every dimension in training, received shape ",
            shape_text(sizes_of(input)));
  const auto values = optional_lengths(input, layout, lengths);
  const cpu::BatchNormActShape shape = make_shape(input, layout, values, count_padding);
  const Tensor x = dense(input);
  const std::optional<Tensor> w = dense(weight), b = dense(bias);
  Tensor output = new_output(x, x.sizes());
  Tensor mean = training ? new_output(input, {channels}) : torch::stable::clone(dense(*running_mean));
  Tensor var = training ? new_output(input, {channels}) : torch::stable::clone(dense(*running_var));
  Tensor count = allocate(input, {}, ScalarType::Long);
  *mutable_data<int64_t>(count) = empty ? 0 : cpu::batch_norm_act_count(shape);
  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    if (empty) return;
    std::vector<T> scale(shape.channels);
    const size_t scratch = training ? size_t(pieces(shape) * shape.channels) : 0;
    std::vector<T> piece_mean(scratch), piece_deviation(scratch);
    std::vector<int64_t> piece_counts(training ? pieces(shape) : 0);
    const cpu::BatchNormActForward<T> pass{data<T>(x),
                                           data_or_null<T>(w),
                                           data_or_null<T>(b),
                                           mutable_data<T>(mean),
                                           mutable_data<T>(var),
                                           T(eps),
                                           T(min),
                                           T(max),
                                           training,
                                           mutable_data<T>(output)};
    cpu::kernels<T>().batch_norm_act_forward(torch_threads(), shape, pass, scale.data(), piece_mean.data(),
                                             piece_deviation.data(), piece_counts.data());
  });
  return {output, mean, var, count};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_act_backward(const Tensor& grad_output, const Tensor& input,
                                                           const std::optional<Tensor>& weight,
                                                           const std::optional<Tensor>& bias, const Tensor& mean,
                                                           const Tensor& var, const std::optional<Tensor>& lengths,
                                                           std::string layout, bool training, bool count_padding,
                                                           double eps, double min, double max) {
  check_arguments(input, layout, weight, bias, lengths);
  const int64_t channels = input.size(int64_t(layout.find('C')));
  check("grad_output", grad_output).dtype(input).shape(sizes_of(input));
  check("mean", mean).dtype(input).shape({channels});
  check("var", var).dtype(input).shape({channels});
  const auto values = optional_lengths(input, layout, lengths);
  // In evaluation the statistics are constants, so no gradient reaches the input's padding.
  const cpu::BatchNormActShape shape = make_shape(input, layout, values, training && count_padding);
  const Tensor dy = dense(grad_output), x = dense(input);
  const Tensor m = dense(mean), v = dense(var);
  const std::optional<Tensor> w = dense(weight), b = dense(bias);
  Tensor grad_input = new_output(x, x.sizes());
  const bool empty = input.numel() == 0;
  // Without values the sums are 0.
  const auto sums = [&] { return empty ? allocate_zeros(input, {channels}) : new_output(input, {channels}); };
  Tensor grad_weight = sums(), grad_bias = sums();
  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    if (empty) return;
    std::vector<T> scale(3 * shape.channels);
    std::vector<T> piece_sum(pieces(shape) * shape.channels), piece_dot(piece_sum.size());
    const cpu::BatchNormActBackward<T> pass{data<T>(dy),
                                            data<T>(x),
                                            data_or_null<T>(w),
                                            data_or_null<T>(b),
                                            data<T>(m),
                                            data<T>(v),
                                            T(eps),
                                            T(min),
                                            T(max),
                                            training,
                                            mutable_data<T>(grad_input),
                                            mutable_data<T>(grad_weight),
                                            mutable_data<T>(grad_bias)};
    cpu::kernels<T>().batch_norm_act_backward(torch_threads(), shape, pass, scale.data(), piece_sum.data(),
                                              piece_dot.data());
  });
  return {grad_input, grad_weight, grad_bias};
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"batch_norm_act", &asrkern::batch_norm_act>(m);
  asrkern::implement<"batch_norm_act_backward", &asrkern::batch_norm_act_backward>(m);
}
