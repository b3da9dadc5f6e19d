#include <algorithm>
#include <initializer_list>
#include <limits>
#include <utility>

#include "csrc/ops/common.h"

namespace asrkern {
namespace {

// One axis of the convolution, in exact integer arithmetic.
struct Axis {
  int64_t size, kernel, stride, padding;

  Axis(const char* name, int64_t size, int64_t kernel, int64_t stride, int64_t padding)
      : size(size), kernel(kernel), stride(stride), padding(padding) {
    if (stride < 1) invalid("stride: expected at least 1, received ", stride, " along ", name);
    if (padding < 0 || padding > kMostPadding)
      invalid("padding: expected 0 to ", kMostPadding, ", received ", padding, " along ", name);
    if (size > std::numeric_limits<int64_t>::max() - 2 * padding || padded() < kernel)
      invalid("input: expected ", name, " of at least ", kernel - 2 * padding,
              ", the kernel's size less its padding, received ", size);
    // A stride beyond the padded input makes one window, as this one does, whose multiples do not overflow.
    this->stride = std::min(stride, padded());
  }

  int64_t padded() const { return size + 2 * padding; }

  // A row without input has no output, even if its padding alone would fill a window.
  int64_t outputs(int64_t length) const {
    if (length == 0 || length + 2 * padding < kernel) return 0;
    return (length + 2 * padding - kernel) / stride + 1;
  }

 private:
  // The most padding: the kernels form addresses of windows that begin this far outside of the input.
  static constexpr int64_t kMostPadding = std::numeric_limits<int32_t>::max();
};

using PerChannel = std::initializer_list<std::pair<const char*, const std::optional<Tensor>*>>;

void check_arguments(const Tensor& input, const Tensor& weight, PerChannel per_channel,
                     const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                     const std::vector<int64_t>& pool, int64_t groups) {
  check("input", input).dim(4);
  if (groups != 1 && groups != input.size(1))
    invalid("groups: expected 1 or the ", input.size(1), " channels of input, received ", groups);
  if (groups == 1)
    check("weight", weight).dtype(input).shape({kAny, input.size(1), kAny, kAny});
  else
    check("weight", weight).dtype(input).shape({groups, 1, kAny, kAny});
  for (int d = 0; d < 4; ++d) {
    if (d > 0 && input.size(d) == 0)
      invalid("input: expected at least one value in every dimension but the first, received shape ",
              shape_text(sizes_of(input)));
    if (weight.size(d) == 0)
      invalid("weight: expected at least one value in every dimension, received shape ", shape_text(sizes_of(weight)));
  }
  for (const auto& [name, tensor] : per_channel) check(name, *tensor).dtype(input).shape({weight.size(0)});
  if (stride.size() != 2) invalid("stride: expected two integers, received ", stride.size());
  if (padding.size() != 2) invalid("padding: expected two integers, received ", padding.size());
  if (pool.size() != 2) invalid("pool: expected two integers, received ", pool.size());
}

void check_pool(const char* axis, int64_t pool, int64_t outputs) {
  if (pool < 1 || pool > outputs)
    invalid("pool: expected 1 to ", outputs, ", the convolution's ", axis, ", received ", pool);
}

Tensor masked_conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
                     const std::optional<Tensor>& lengths, const std::optional<Tensor>& output_lengths,
                     std::vector<int64_t> stride, std::vector<int64_t> padding, double min, double max,
                     std::vector<int64_t> pool, int64_t groups) {
  check_arguments(input, weight, {{"bias", &bias}, {"scale", &scale}, {"shift", &shift}}, stride, padding, pool,
                  groups);
  const Axis bins("F (frequency)", input.size(2), weight.size(2), stride[0], padding[0]);
  const Axis frames("T (time)", input.size(3), weight.size(3), stride[1], padding[1]);
  const int64_t batch = input.size(0);
  // The kernels count the bytes of a padded copy in int64. Its last tile reads up to twelve strides beyond the input,
  // and no stride is longer than that, so the copy is less than kPaddedCopy times as long.
  constexpr int64_t kPaddedCopy = 16;
  const int64_t padded[] = {batch, input.size(1), bins.padded(), frames.padded()};
  bytes_of(padded, kPaddedCopy * int64_t(sizeof(double)));
  const int64_t out_bins = bins.outputs(bins.size), out_frames = frames.outputs(frames.size);
  check_pool("F' (frequency)", pool[0], out_bins);
  check_pool("T' (time)", pool[1], out_frames);
  const Tensor x = dense(input), w = dense(weight);
  const std::vector<int64_t> in_lengths =
      lengths ? read_lengths(*lengths, "lengths", batch, frames.size) : std::vector<int64_t>(batch, frames.size);
  std::vector<int64_t> out_lengths;
  if (output_lengths) {
    out_lengths = read_lengths(*output_lengths, "output_lengths", batch, out_frames);
  } else {
    for (int64_t length : in_lengths) out_lengths.push_back(frames.outputs(length));
  }
  const std::optional<Tensor> b = dense(bias), a = dense(scale), c = dense(shift);
  Tensor output = new_output(input, {batch, weight.size(0), out_bins / pool[0], out_frames / pool[1]});
  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    cpu::MaskedConv2d<T> conv{batch,
                              input.size(1),
                              bins.size,
                              frames.size,
                              weight.size(0),
                              out_bins,
                              out_frames,
                              bins.kernel,
                              frames.kernel,
                              bins.stride,
                              frames.stride,
                              bins.padding,
                              frames.padding,
                              pool[0],
                              pool[1],
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
                              mutable_data<T>(output),
                              groups > 1};
    if (output.numel() == 0) return;
    const cpu::ThreadPool threads = torch_threads();
    Tensor packed = allocate(w, {kernels.masked_conv2d_packed_size(conv)});
    Tensor scratch = allocate(x, {kernels.masked_conv2d_scratch_size(threads, conv)});
    kernels.masked_conv2d_pack(threads, conv, data<T>(w), mutable_data<T>(packed));
    conv.weight = data<T>(packed);
    conv.scratch = mutable_data<T>(scratch);
    kernels.masked_conv2d(threads, conv);
  });
  return output;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) { asrkern::implement<"masked_conv2d", &asrkern::masked_conv2d>(m); }
