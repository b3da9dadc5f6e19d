#include <algorithm>
#include <initializer_list>
#include <limits>
#include <utility>

#include "csrc/ops/common.h"
#include "kernels/conv/cpu/dispatch.h"

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
                     const std::vector<int64_t>& stride, const std::vector<int64_t>& padding, int64_t groups = 1) {
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
}

void check_pool(const char* axis, int64_t pool, int64_t outputs) {
  if (pool < 1 || pool > outputs)
    invalid("pool: expected 1 to ", outputs, ", the convolution's ", axis, ", received ", pool);
}

// The axes of a convolution, and the frames of its rows.
struct Geometry {
  int64_t batch;
  Axis bins, frames;
  int64_t out_bins, out_frames;
  std::vector<int64_t> lengths, output_lengths;

  Geometry(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& in_lengths,
           const std::optional<Tensor>& out_lengths, const std::vector<int64_t>& stride,
           const std::vector<int64_t>& padding)
      : batch(input.size(0)),
        bins("F (frequency)", input.size(2), weight.size(2), stride[0], padding[0]),
        frames("T (time)", input.size(3), weight.size(3), stride[1], padding[1]),
        out_bins(bins.outputs(bins.size)),
        out_frames(frames.outputs(frames.size)) {
    // The kernels count the bytes of a padded copy in int64. Its last tile reads up to twelve strides beyond the input,
    // and no stride is longer than that, so the copy is less than kPaddedCopy times as long.
    constexpr int64_t kPaddedCopy = 16;
    const int64_t padded[] = {batch, input.size(1), bins.padded(), frames.padded()};
    bytes_of(padded, kPaddedCopy * int64_t(sizeof(double)));
    lengths = in_lengths ? read_lengths(*in_lengths, "lengths", batch, frames.size)
                         : std::vector<int64_t>(batch, frames.size);
    if (out_lengths) {
      output_lengths = read_lengths(*out_lengths, "output_lengths", batch, out_frames);
    } else {
      for (int64_t length : lengths) output_lengths.push_back(frames.outputs(length));
    }
  }

  // As the kernels take it, without a pool, bounds and tensors. It points into this object.
  template <class T>
  cpu::MaskedConv2d<T> kernel_arguments(int64_t in_channels, int64_t out_channels) const {
    cpu::MaskedConv2d<T> conv{};
    conv.batch = batch;
    conv.in_channels = in_channels, conv.in_bins = bins.size, conv.in_frames = frames.size;
    conv.out_channels = out_channels, conv.out_bins = out_bins, conv.out_frames = out_frames;
    conv.kernel_bins = bins.kernel, conv.kernel_frames = frames.kernel;
    conv.stride_bins = bins.stride, conv.stride_frames = frames.stride;
    conv.padding_bins = bins.padding, conv.padding_frames = frames.padding;
    conv.pool_bins = conv.pool_frames = 1;
    conv.lengths = lengths.data(), conv.output_lengths = output_lengths.data();
    return conv;
  }
};

template <class T>
cpu::ConvForward<T> way_to_convolve(const cpu::MaskedConv2d<T>& conv) {
  const cpu::ConvKernels<T>& own = cpu::conv_kernels<T>();
  if (own.blocked_pays(conv)) return own.blocked;
  const cpu::Kernels<T>& kernels = cpu::kernels<T>();
  return {kernels.masked_conv2d_packed_size, kernels.masked_conv2d_scratch_size, kernels.masked_conv2d_pack,
          kernels.masked_conv2d};
}

// conv: all but weight and scratch.
template <class T>
void run(const cpu::ThreadPool& threads, cpu::MaskedConv2d<T>& conv, const Tensor& weight) {
  const cpu::ConvForward<T> way = way_to_convolve(conv);
  Tensor packed = allocate(weight, {way.packed_size(conv)});
  Tensor scratch = allocate(weight, {way.scratch_size(threads, conv)});
  way.pack(threads, conv, data<T>(weight), mutable_data<T>(packed));
  conv.weight = data<T>(packed);
  conv.scratch = mutable_data<T>(scratch);
  way.run(threads, conv);
}

Tensor masked_conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
                     const std::optional<Tensor>& lengths, const std::optional<Tensor>& output_lengths,
                     std::vector<int64_t> stride, std::vector<int64_t> padding, double min, double max,
                     std::vector<int64_t> pool, int64_t groups) {
  check_arguments(input, weight, {{"bias", &bias}, {"scale", &scale}, {"shift", &shift}}, stride, padding, groups);
  if (pool.size() != 2) invalid("pool: expected two integers, received ", pool.size());
  const Geometry geometry(input, weight, lengths, output_lengths, stride, padding);
  check_pool("F' (frequency)", pool[0], geometry.out_bins);
  check_pool("T' (time)", pool[1], geometry.out_frames);
  const Tensor x = dense(input), w = dense(weight);
  const std::optional<Tensor> b = dense(bias), a = dense(scale), c = dense(shift);
  Tensor output =
      new_output(input, {geometry.batch, weight.size(0), geometry.out_bins / pool[0], geometry.out_frames / pool[1]});
  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    cpu::MaskedConv2d<T> conv = geometry.kernel_arguments<T>(input.size(1), weight.size(0));
    conv.depthwise = groups > 1;
    conv.pool_bins = pool[0], conv.pool_frames = pool[1];
    conv.min = T(min), conv.max = T(max);
    conv.input = data<T>(x);
    conv.bias = data_or_null<T>(b), conv.scale = data_or_null<T>(a), conv.shift = data_or_null<T>(c);
    conv.output = mutable_data<T>(output);
    if (output.numel() > 0) run(torch_threads(), conv, w);
  });
  return output;
}

void check_grad_output(const Tensor& grad_output, const Tensor& input, const Tensor& weight, const Geometry& geometry) {
  check("grad_output", grad_output)
      .dtype(input)
      .shape({geometry.batch, weight.size(0), geometry.out_bins, geometry.out_frames});
}

// weight [O, C, K, J] → to [C, O, taps, J]: its bins first, first + step, …, reversed as its frames are.
template <class T>
void reverse_kernel(const Tensor& weight, int64_t first, int64_t step, int64_t taps, T* to) {
  const T* from = data<T>(weight);
  const int64_t outputs = weight.size(0), inputs = weight.size(1), bins = weight.size(2), frames = weight.size(3);
  for (int64_t c = 0; c < inputs; ++c)
    for (int64_t o = 0; o < outputs; ++o)
      for (int64_t tap = taps; tap-- > 0;)
        for (int64_t j = frames; j-- > 0;) *to++ = from[((o * inputs + c) * bins + first + tap * step) * frames + j];
}

// Of input only the shape is used. For each remainder of its bins by the stride, the gradient of those bins is a
// convolution of grad_output: bin b meets the kernel's bins k = remainder + step·j where (b + padding) mod step is
// remainder, and the output's bin (b + padding) / step − j.
Tensor masked_conv2d_backward_input(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                    const std::optional<Tensor>& lengths, const std::optional<Tensor>& output_lengths,
                                    std::vector<int64_t> stride, std::vector<int64_t> padding) {
  check_arguments(input, weight, {}, stride, padding);
  const Geometry geometry(input, weight, lengths, output_lengths, stride, padding);
  check_grad_output(grad_output, input, weight, geometry);
  if (stride[1] != 1) invalid("stride: expected 1 along T (time), received ", stride[1]);
  if (padding[1] >= weight.size(3))
    invalid("padding: expected less than the kernel's ", weight.size(3), " frames along T (time), received ",
            padding[1]);
  const Tensor g = dense(grad_output), w = dense(weight);
  const int64_t batch = geometry.batch, channels = input.size(1), bins = input.size(2), frames = input.size(3);
  const int64_t step = geometry.bins.stride, first_padding = geometry.bins.padding;
  Tensor grad_input = new_output(input, {batch, channels, bins, frames});
  torch::stable::fill_(grad_input, 0.0);
  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    for (int64_t remainder = 0; remainder < std::min(step, weight.size(2)); ++remainder) {
      const int64_t taps = (weight.size(2) - remainder + step - 1) / step;
      const int64_t first = ((remainder - first_padding) % step + step) % step;
      if (first >= bins) continue;
      // The bins of the convolution that are wanted; those behind are 0.
      const int64_t begin = (first + first_padding) / step, count = (bins - first + step - 1) / step;
      const int64_t wanted = std::min(count, geometry.out_bins + taps - 1 - begin);
      if (wanted <= 0 || batch == 0) continue;
      Tensor kernel = allocate(w, {channels, weight.size(0), taps, weight.size(3)});
      reverse_kernel(w, remainder, step, taps, mutable_data<T>(kernel));
      Tensor part = allocate(input, {batch, channels, wanted, frames});
      cpu::MaskedConv2d<T> conv{};
      conv.batch = batch;
      conv.in_channels = weight.size(0), conv.in_bins = geometry.out_bins, conv.in_frames = geometry.out_frames;
      conv.out_channels = channels, conv.out_bins = wanted, conv.out_frames = frames;
      conv.kernel_bins = taps, conv.kernel_frames = weight.size(3);
      conv.stride_bins = conv.stride_frames = conv.pool_bins = conv.pool_frames = 1;
      // Below 0, the first bins of grad_output have no part in this.
      conv.padding_bins = taps - 1 - begin, conv.padding_frames = weight.size(3) - 1 - padding[1];
      conv.lengths = geometry.output_lengths.data(), conv.output_lengths = geometry.lengths.data();
      conv.min = -std::numeric_limits<T>::infinity(), conv.max = std::numeric_limits<T>::infinity();
      conv.input = data<T>(g);
      conv.output = mutable_data<T>(part);
      run(torch_threads(), conv, kernel);
      const T* from = data<T>(part);
      T* to = mutable_data<T>(grad_input) + first * frames;
      for (int64_t plane = 0; plane < batch * channels; ++plane, to += bins * frames)
        for (int64_t bin = 0; bin < wanted; ++bin, from += frames)
          std::copy(from, from + frames, to + bin * step * frames);
    }
  });
  return grad_input;
}

// Of weight only the shape is used.
Tensor masked_conv2d_backward_weight(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                     const std::optional<Tensor>& lengths, const std::optional<Tensor>& output_lengths,
                                     std::vector<int64_t> stride, std::vector<int64_t> padding) {
  check_arguments(input, weight, {}, stride, padding);
  const Geometry geometry(input, weight, lengths, output_lengths, stride, padding);
  check_grad_output(grad_output, input, weight, geometry);
  const Tensor g = dense(grad_output), x = dense(input);
  // Allocated before the sizes below are computed: they are at most some ten thousand times as large.
  Tensor grad_weight = new_output(weight, {weight.size(0), weight.size(1), weight.size(2), weight.size(3)});
  with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::ConvKernels<T>& kernels = cpu::conv_kernels<T>();
    cpu::MaskedConv2d<T> conv = geometry.kernel_arguments<T>(weight.size(1), weight.size(0));
    conv.input = data<T>(x);
    const cpu::ThreadPool threads = torch_threads();
    Tensor scratch = allocate(x, {kernels.backward_weight_scratch_size(threads, conv)});
    conv.scratch = mutable_data<T>(scratch);
    kernels.backward_weight(threads, conv, data<T>(g), mutable_data<T>(grad_weight));
  });
  return grad_weight;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"masked_conv2d", &asrkern::masked_conv2d>(m);
  asrkern::implement<"masked_conv2d_backward_input", &asrkern::masked_conv2d_backward_input>(m);
  asrkern::implement<"masked_conv2d_backward_weight", &asrkern::masked_conv2d_backward_weight>(m);
}
