#include "csrc/ops/common.h"

namespace asrkern {
namespace {

Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  const int64_t in_features = weight.size(1), out_features = weight.size(0);
  const Tensor x = dense(input), w = dense(weight);
  const std::optional<Tensor> b = dense(bias);
  std::vector<int64_t> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = out_features;
  Tensor output = new_output(input, sizes);
  const int64_t rows = output.numel() / (out_features > 0 ? out_features : 1);
  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::ThreadPool pool = torch_threads();
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    Tensor scratch = torch::stable::new_empty(w, {kernels.linear_scratch_size(pool, in_features)});
    std::vector<const T*> from(rows);
    std::vector<T*> to(rows);
    for (int64_t i = 0; i < rows; ++i) {
      from[i] = data<T>(x) + i * in_features;
      to[i] = mutable_data<T>(output) + i * out_features;
    }
    kernels.linear(pool, from.data(), rows, data<T>(w), nullptr, data_or_null<T>(b), out_features, in_features,
                   to.data(), mutable_data<T>(scratch));
  });
  return output;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) { m.impl("linear", TORCH_BOX(&asrkern::linear)); }
