#include "csrc/ops/common.h"

namespace asrkern {
namespace {

template <class T, class W>
Tensor run(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& scale,
           const std::optional<Tensor>& bias, const cpu::LinearKernels<T, W>& kernels) {
  check("weight", weight).dim(2);
  const int64_t in_features = weight.size(1), out_features = weight.size(0);
  if (sizes_of(input).empty() || sizes_of(input).back() != in_features)
    invalid("input: expected ", in_features, " features in the last dimension, received shape ",
            shape_text(sizes_of(input)));
  check("scale", scale).dtype(input).shape({out_features});
  check("bias", bias).dtype(input).shape({out_features});
  const Tensor x = dense(input), w = dense(weight);
  const std::optional<Tensor> a = dense(scale), b = dense(bias);
  std::vector<int64_t> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = out_features;
  Tensor output = new_output(input, sizes);
  if (output.numel() == 0) return output;
  const int64_t rows = output.numel() / out_features;
  const cpu::ThreadPool pool = torch_threads();
  Tensor scratch = allocate(input, {kernels.scratch_size(pool, rows, in_features)});
  kernels.run(pool, {.x = row_pointers(data<T>(x), rows, in_features).data(),
                     .rows = rows,
                     .weight = data<W>(w),
                     .out_features = out_features,
                     .in_features = in_features,
                     .y = row_pointers(mutable_data<T>(output), rows, out_features).data(),
                     .scratch = mutable_data<T>(scratch),
                     .scale = data_or_null<T>(a),
                     .bias = data_or_null<T>(b)});
  return output;
}

Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    check("weight", weight).dtype(input);
    return run<T, T>(input, weight, std::nullopt, bias, cpu::kernels<T>().linear);
  });
}

Tensor linear_quantized(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& scale,
                        const std::optional<Tensor>& bias, bool int8_activations) {
  check("input", input).dtype(ScalarType::Float);
  check("weight", weight).dtype({ScalarType::Char, ScalarType::BFloat16});
  if (int8_activations) {
    check("weight", weight).dtype(ScalarType::Char).dim(2);
    check_dot_features("input", weight.size(1));
    return run<float, cpu::Int8Dot>(input, weight, scale, bias, cpu::int8_kernels().linear);
  }
  const cpu::Kernels<float>& kernels = cpu::kernels<float>();
  if (weight.scalar_type() == ScalarType::Char)
    return run<float, int8_t>(input, weight, scale, bias, kernels.linear_int8);
  return run<float, cpu::Bf16>(input, weight, scale, bias, kernels.linear_bf16);
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"linear", &asrkern::linear>(m);
  asrkern::implement<"linear_quantized", &asrkern::linear_quantized>(m);
}
