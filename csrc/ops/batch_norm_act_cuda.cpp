#include <tuple>

#include "csrc/ops/batch_norm_act.h"
#include "kernels/cuda/batch_norm_act.h"

namespace asrkern {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_act(const Tensor& input, const std::optional<Tensor>& weight,
                                                          const std::optional<Tensor>& bias,
                                                          const std::optional<Tensor>& running_mean,
                                                          const std::optional<Tensor>& running_var,
                                                          const std::optional<Tensor>& lengths, std::string layout,
                                                          bool training, bool count_padding, double eps, double min,
                                                          double max) {
  if (training) invalid("training: expected False on CUDA, where this kernel is for inference, received True");
  if (input.scalar_type() != ScalarType::Float) invalid("input: expected dtype float32 on CUDA, received another");
  const BatchNormActSizes sizes(input, layout);
  const Tensor x = dense(input), mean = dense(*running_mean), var = dense(*running_var);
  const std::optional<Tensor> w = dense(weight), b = dense(bias), frames = dense(lengths);
  Tensor output = new_output(x, sizes_of(x));
  Tensor count = torch::stable::new_empty(input, {}, ScalarType::Long);
  const cuda::BatchNormActInference args{sizes.batch,
                                         sizes.channels,
                                         sizes.inner,
                                         sizes.time,
                                         sizes.time_last,
                                         sizes.batch_first,
                                         count_padding,
                                         data_or_null<int64_t>(frames),
                                         data<float>(x),
                                         data_or_null<float>(w),
                                         data_or_null<float>(b),
                                         data<float>(mean),
                                         data<float>(var),
                                         float(eps),
                                         float(min),
                                         float(max),
                                         mutable_data<float>(output),
                                         mutable_data<int64_t>(count)};
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(input.get_device_index(), &stream));
  if (const int error = cuda::batch_norm_act_inference(args, stream))
    throw std::runtime_error("asrkern::batch_norm_act: the CUDA launch failed with error " + std::to_string(error));
  return {output, torch::stable::clone(mean), torch::stable::clone(var), count};
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CUDA, m) { m.impl("batch_norm_act", TORCH_BOX(&asrkern::batch_norm_act)); }
