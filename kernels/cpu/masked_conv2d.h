// Convolution over (frequency, time) for inference, with a per-channel affine map, a clamp and the time mask as its
// epilogue: y = mask(clamp((conv(x) + bias) · scale + shift)).
//
// Direct convolution, vectorised over output channels: a tile is kFrames output frames × all channels of one vector
// group; its input frames are read from a zero-padded copy of the row, so neither the edges in time nor what the batch
// holds beyond a row's length need a branch. Each output is one chain of fma over ascending (c_in, k_f, k_t), and
// frames past a row's output length are not computed.
#pragma once

#include "kernels/cpu/linear.h"

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
  T* padded;        // [batch, in_channels, in_bins, masked_conv2d_padded_frames] scratch
  T* output;        // [batch, out_channels, out_bins, out_frames]
};

namespace {

template <class T>
struct ConvTile {
  static constexpr int kVecs = 2;
#if defined(__AVX512F__)
  static constexpr int kFrames = 12;
#else
  static constexpr int kFrames = 6;
#endif
  static constexpr int kChannels = kVecs * Vec<T>::kWidth;
};

// Room for the last tile's frames past the row's end.
template <class T>
int64_t masked_conv2d_padded_frames(const MaskedConv2d<T>& a) {
  return (ceil_div(a.out_frames, ConvTile<T>::kFrames) * ConvTile<T>::kFrames - 1) * a.stride_frames + a.kernel_frames;
}

template <class T>
int64_t masked_conv2d_packed_size(const MaskedConv2d<T>& a) {
  return ceil_div(a.out_channels, ConvTile<T>::kChannels) * ConvTile<T>::kChannels * a.in_channels * a.kernel_bins *
         a.kernel_frames;
}

// weight: [out_channels, taps] → packed: [group of kChannels][tap][channel], zero beyond out_channels.
template <class T>
void masked_conv2d_pack(const T* weight, int64_t out_channels, int64_t taps, T* packed) {
  constexpr int kChannels = ConvTile<T>::kChannels;
  for (int64_t group = 0; group < ceil_div(out_channels, kChannels); ++group)
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t i = 0; i < kChannels; ++i) {
        const int64_t channel = group * kChannels + i;
        packed[(group * taps + tap) * kChannels + i] = channel < out_channels ? weight[channel * taps + tap] : T(0);
      }
}

// kFrames output frames from `frame` of one output bin, one group of channels.
template <class T>
void masked_conv2d_tile(const MaskedConv2d<T>& a, int64_t row, int64_t group, int64_t bin, int64_t frame,
                        int64_t frames) {
  using V = Vec<T>;
  using Tile = ConvTile<T>;
  const int64_t padded_frames = masked_conv2d_padded_frames(a);
  const int64_t first_bin = bin * a.stride_bins - a.padding_bins;
  const int64_t k_begin = first_bin < 0 ? -first_bin : 0;
  const int64_t k_end = first_bin + a.kernel_bins > a.in_bins ? a.in_bins - first_bin : a.kernel_bins;
  const int64_t taps = a.in_channels * a.kernel_bins * a.kernel_frames, stride = a.stride_frames;
  V acc[Tile::kFrames][Tile::kVecs];
  for (int m = 0; m < Tile::kFrames; ++m)
    for (int v = 0; v < Tile::kVecs; ++v) acc[m][v] = V::set1(0);
  for (int64_t c = 0; c < a.in_channels; ++c)
    for (int64_t k = k_begin; k < k_end; ++k) {
      const T* x = a.padded + ((row * a.in_channels + c) * a.in_bins + first_bin + k) * padded_frames + frame * stride;
      const T* w = a.weight + (group * taps + (c * a.kernel_bins + k) * a.kernel_frames) * Tile::kChannels;
      for (int64_t t = 0; t < a.kernel_frames; ++t, ++x, w += Tile::kChannels) {
        V weights[Tile::kVecs];
        for (int v = 0; v < Tile::kVecs; ++v) weights[v] = V::load(w + v * V::kWidth);
        for (int m = 0; m < Tile::kFrames; ++m) {
          const V value = V::set1(x[m * stride]);
          for (int v = 0; v < Tile::kVecs; ++v) acc[m][v] = fma(value, weights[v], acc[m][v]);
        }
      }
    }
  T values[Tile::kFrames][Tile::kChannels];
  const int64_t first_channel = group * Tile::kChannels;
  for (int v = 0; v < Tile::kVecs; ++v) {
    const int64_t channel = first_channel + v * V::kWidth;
    const int lanes = int(a.out_channels - channel < V::kWidth ? a.out_channels - channel : V::kWidth);
    if (lanes <= 0) break;
    const V bias = a.bias ? V::load(a.bias + channel, lanes) : V::set1(0);
    const V scale = a.scale ? V::load(a.scale + channel, lanes) : V::set1(1);
    const V shift = a.shift ? V::load(a.shift + channel, lanes) : V::set1(0);
    for (int m = 0; m < Tile::kFrames; ++m)
      clamp(fma(acc[m][v] + bias, scale, shift), a.min, a.max).store(values[m] + v * V::kWidth);
  }
  for (int64_t i = 0; i < Tile::kChannels && first_channel + i < a.out_channels; ++i) {
    T* y = a.output + ((row * a.out_channels + first_channel + i) * a.out_bins + bin) * a.out_frames + frame;
    for (int64_t m = 0; m < frames; ++m) y[m] = values[m][i];
  }
}

template <class T>
void masked_conv2d(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  constexpr int kFrames = ConvTile<T>::kFrames;
  const int64_t padded_frames = masked_conv2d_padded_frames(a);
  parallel_for(pool, a.batch * a.in_channels * a.in_bins, [&](int64_t run) {
    const int64_t length = a.lengths[run / (a.in_channels * a.in_bins)];
    T* to = a.padded + run * padded_frames;
    // A stride can leave frames past the last window: they are read by nobody.
    const int64_t end = length < padded_frames - a.padding_frames ? length : padded_frames - a.padding_frames;
    int64_t i = 0;
    for (; i < a.padding_frames && i < padded_frames; ++i) to[i] = T(0);
    for (int64_t t = 0; t < end; ++t, ++i) to[i] = a.input[run * a.in_frames + t];
    for (; i < padded_frames; ++i) to[i] = T(0);
  });
  const int64_t groups = ceil_div(a.out_channels, ConvTile<T>::kChannels);
  parallel_for(pool, a.batch * a.out_bins, [&](int64_t task) {
    // Rows innermost: a thread's contiguous share of the tasks then has long and short rows alike.
    const int64_t row = task % a.batch, bin = task / a.batch, length = a.output_lengths[row];
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t frame = 0; frame < length; frame += kFrames)
        masked_conv2d_tile(a, row, group, bin, frame, length - frame < kFrames ? length - frame : kFrames);
    for (int64_t channel = 0; channel < a.out_channels; ++channel) {
      T* y = a.output + ((row * a.out_channels + channel) * a.out_bins + bin) * a.out_frames;
      for (int64_t t = length; t < a.out_frames; ++t) y[t] = T(0);
    }
  });
}

}  // namespace
}  // namespace asrkern::cpu
