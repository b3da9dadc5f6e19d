// What both algorithms of masked_conv2d share: the arguments, the padded copy of a row, the epilogue.
#pragma once

#include "kernels/linear/cpu/linear.h"

namespace asrkern::cpu {

template <class T>
struct MaskedConv2d {
  int64_t batch, in_channels, in_bins, in_frames;
  int64_t out_channels, out_bins, out_frames;
  int64_t kernel_bins, kernel_frames, stride_bins, stride_frames, padding_bins, padding_frames;
  const int64_t* lengths;         // [batch] input frames of each row; those beyond are read as 0
  const int64_t* output_lengths;  // [batch] output frames of each row; those beyond are written as 0
  T min, max;
  const T* input;   // [batch, in_channels, in_bins, in_frames]
  const T* weight;  // masked_conv2d_pack's
  const T* bias;    // [out_channels] or null
  const T* scale;   // [out_channels] or null
  const T* shift;   // [out_channels] or null
  T* scratch;       // [masked_conv2d_scratch_size]
  T* output;        // [batch, out_channels, out_bins, out_frames]
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

// The epilogue of `frames` frames × one group of channels, values: [frames][stride], into the output's rows.
template <class T>
void masked_conv2d_store(const MaskedConv2d<T>& a, int64_t row, int64_t first_channel, int64_t channels, int64_t bin,
                         int64_t frame, int64_t frames, T* values, int64_t stride) {
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
    T* y = a.output + ((row * a.out_channels + channel) * a.out_bins + bin) * a.out_frames + frame;
    transpose(values + offset, stride, int(frames), int(frames), lanes, y, a.out_bins * a.out_frames);
  }
}

template <class T>
void masked_conv2d_zero_tail(const MaskedConv2d<T>& a, int64_t row, int64_t bin) {
  for (int64_t channel = 0; channel < a.out_channels; ++channel) {
    T* y = a.output + ((row * a.out_channels + channel) * a.out_bins + bin) * a.out_frames;
    for (int64_t t = a.output_lengths[row]; t < a.out_frames; ++t) y[t] = T(0);
  }
}

}  // namespace
}  // namespace asrkern::cpu
