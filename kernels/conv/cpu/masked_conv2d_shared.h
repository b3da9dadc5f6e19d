// What the algorithms of masked_conv2d share: the arguments, the padded copy of a row, the epilogue.
#pragma once

#include "kernels/linear/cpu/linear.h"

namespace asrkern::cpu {

template <class T>
struct MaskedConv2d {
  int64_t batch, in_channels, in_bins, in_frames;
  int64_t out_channels, out_bins, out_frames;
  int64_t kernel_bins, kernel_frames, stride_bins, stride_frames, padding_bins, padding_frames;
  int64_t pool_bins, pool_frames;  // the output is the maximum of so many bins and frames, those left over left out
  const int64_t* lengths;          // [batch] input frames of each row; those beyond are read as 0
  const int64_t* output_lengths;   // [batch] frames of each row before the pool; those beyond are written as 0
  T min, max;
  const T* input;   // [batch, in_channels, in_bins, in_frames]
  const T* weight;  // masked_conv2d_pack's
  const T* bias;    // [out_channels] or null
  const T* scale;   // [out_channels] or null
  const T* shift;   // [out_channels] or null
  T* scratch;       // [masked_conv2d_scratch_size]
  T* output;        // [batch, out_channels, pooled_bins, pooled_frames]
  bool depthwise;   // each channel has a filter of its own: as many out as in

  int64_t pooled_bins() const { return out_bins / pool_bins; }
  int64_t pooled_frames() const { return out_frames / pool_frames; }
  bool pools() const { return pool_bins > 1 || pool_frames > 1; }
};

namespace {

// One channel and bin of a row as phases of every `phases`-th frame: `to` [phases][frames_per_phase] is frame
// padding_frames·(−1) onwards, 0 before the row's start and past its length.
template <class T>
void masked_conv2d_pad(const MaskedConv2d<T>& a, int64_t row, int64_t channel_and_bin, int64_t phases,
                       int64_t frames_per_phase, T* to) {
  const T* from = a.input + (row * a.in_channels * a.in_bins + channel_and_bin) * a.in_frames;
  for (int64_t phase = 0; phase < phases; ++phase, to += frames_per_phase)
    for (int64_t i = 0; i < frames_per_phase; ++i) {
      const int64_t frame = phase + i * phases - a.padding_frames;
      to[i] = frame >= 0 && frame < a.lengths[row] ? from[frame] : T(0);
    }
}

// The kernel bins that meet the input at an output bin: frequency padding is skipped, not computed.
template <class T>
void masked_conv2d_bins(const MaskedConv2d<T>& a, int64_t bin, int64_t& first_bin, int64_t& begin, int64_t& end) {
  first_bin = bin * a.stride_bins - a.padding_bins;
  begin = first_bin < 0 ? -first_bin : 0;
  end = first_bin + a.kernel_bins > a.in_bins ? a.in_bins - first_bin : a.kernel_bins;
}

// The affine map and the clamp of `frames` frames × one group of channels, values: [frames][stride].
template <class T>
void masked_conv2d_activate(const MaskedConv2d<T>& a, int64_t first_channel, int64_t channels, int64_t frames,
                            T* values, int64_t stride) {
  using V = Vec<T>;
  for (int64_t offset = 0; offset < channels && first_channel + offset < a.out_channels; offset += V::kWidth) {
    const int64_t channel = first_channel + offset;
    const int lanes = int(a.out_channels - channel < V::kWidth ? a.out_channels - channel : V::kWidth);
    const V bias = a.bias ? V::load(a.bias + channel, lanes) : V::set1(0);
    const V scale = a.scale ? V::load(a.scale + channel, lanes) : V::set1(1);
    const V shift = a.shift ? V::load(a.shift + channel, lanes) : V::set1(0);
    for (int64_t m = 0; m < frames; ++m) {
      T* value = values + m * stride + offset;
      clamp(fma(V::load(value) + bias, scale, shift), a.min, a.max).store(value);
    }
  }
}

// values: [frames][stride] → the output's rows of one group of channels, from one of its bins and frames on.
template <class T>
void masked_conv2d_scatter(const MaskedConv2d<T>& a, int64_t row, int64_t first_channel, int64_t channels, int64_t bin,
                           int64_t frame, int64_t frames, const T* values, int64_t stride) {
  const int64_t left = a.out_channels - first_channel, size = a.pooled_bins() * a.pooled_frames();
  if (left <= 0) return;
  T* y = a.output + (row * a.out_channels + first_channel) * size + bin * a.pooled_frames() + frame;
  transpose(values, stride, int(frames), int(frames), left < channels ? left : channels, y, size);
}

// The epilogue without a pool.
template <class T>
void masked_conv2d_store(const MaskedConv2d<T>& a, int64_t row, int64_t first_channel, int64_t channels, int64_t bin,
                         int64_t frame, int64_t frames, T* values, int64_t stride) {
  masked_conv2d_activate(a, first_channel, channels, frames, values, stride);
  masked_conv2d_scatter(a, row, first_channel, channels, bin, frame, frames, values, stride);
}

template <class T>
void masked_conv2d_zero_tail(const MaskedConv2d<T>& a, int64_t row, int64_t bin) {
  for (int64_t channel = 0; channel < a.out_channels; ++channel) {
    T* y = a.output + ((row * a.out_channels + channel) * a.pooled_bins() + bin) * a.pooled_frames();
    for (int64_t t = a.output_lengths[row] / a.pool_frames; t < a.pooled_frames(); ++t) y[t] = T(0);
  }
}

// The pool by itself: from [batch, out_channels, out_bins, out_frames].
template <class T>
void masked_conv2d_pool(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* from) {
  const int64_t bins = a.pooled_bins(), frames = a.pooled_frames();
  parallel_for(pool, a.batch * a.out_channels * bins, [&](int64_t task) {
    const int64_t plane = task / bins, bin = task % bins * a.pool_bins;
    const int64_t valid = a.output_lengths[plane / a.out_channels] / a.pool_frames;
    const T* x = from + (plane * a.out_bins + bin) * a.out_frames;
    T* y = a.output + task * frames;
    for (int64_t t = 0; t < frames; ++t) y[t] = t < valid ? x[t * a.pool_frames] : T(0);
    for (int64_t i = 0; i < a.pool_bins; ++i)
      for (int64_t t = 0; t < valid * a.pool_frames; ++t) {
        const T value = x[i * a.out_frames + t];
        T& most = y[t / a.pool_frames];
        // As torch's, a NaN stays a NaN.
        if (!(value <= most)) most = most != most ? most : value;
      }
  });
}

}  // namespace
}  // namespace asrkern::cpu
