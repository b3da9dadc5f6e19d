#include "csrc/ops/common.h"

namespace asrkern {
namespace {

// Exact integers; a row without input has no output, though its padding alone would fill a window.
int64_t output_length(int64_t length, int64_t kernel, int64_t stride, int64_t padding) {
  if (length == 0 || length + 2 * padding < kernel) return 0;
  return (length + 2 * padding - kernel) / stride + 1;
}

Tensor masked_conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
                     const std::optional<Tensor>& lengths, const std::optional<Tensor>& output_lengths,
                     std::vector<int64_t> stride, std::vector<int64_t> padding, double min, double max) {
  const int64_t batch = input.size(0), in_frames = input.size(3);
  const int64_t out_bins = output_length(input.size(2), weight.size(2), stride[0], padding[0]);
  const int64_t out_frames = output_length(in_frames, weight.size(3), stride[1], padding[1]);
  const std::vector<int64_t> in_lengths =
      lengths ? read_lengths(*lengths, "lengths", batch, in_frames) : std::vector<int64_t>(batch, in_frames);
  std::vector<int64_t> out_lengths;
  if (output_lengths) {
    out_lengths = read_lengths(*output_lengths, "output_lengths", batch, out_frames);
  } else {
    for (int64_t length : in_lengths)
      out_lengths.push_back(output_length(length, weight.size(3), stride[1], padding[1]));
  }
  const Tensor x = dense(input), w = dense(weight);
  const std::optional<Tensor> b = dense(bias), a = dense(scale), c = dense(shift);
  Tensor output = new_output(input, {batch, weight.size(0), out_bins, out_frames});
  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    cpu::MaskedConv2d<T> conv{batch,
                              weight.size(1),
                              input.size(2),
                              in_frames,
                              weight.size(0),
                              out_bins,
                              out_frames,
                              weight.size(2),
                              weight.size(3),
                              stride[0],
                              stride[1],
                              padding[0],
                              padding[1],
                              in_lengths.data(),
                              out_lengths.data(),
                              T(min),
                              T(max),
                              data<T>(x),
                              nullptr,
                              data_or_null<T>(b),
                              data_or_null<T>(a),
                              data_or_null<T>(c),
                              nullptr,
                              mutable_data<T>(output)};
    if (output.numel() == 0) return;
    const cpu::ThreadPool pool = torch_threads();
    Tensor packed = torch::stable::new_empty(w, {kernels.masked_conv2d_packed_size(conv)});
    Tensor scratch = torch::stable::new_empty(x, {kernels.masked_conv2d_scratch_size(pool, conv)});
    kernels.masked_conv2d_pack(pool, conv, data<T>(w), mutable_data<T>(packed));
    conv.weight = data<T>(packed);
    conv.scratch = mutable_data<T>(scratch);
    kernels.masked_conv2d(pool, conv);
  });
  return output;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) { m.impl("masked_conv2d", TORCH_BOX(&asrkern::masked_conv2d)); }
