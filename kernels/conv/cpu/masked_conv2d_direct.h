// masked_conv2d by direct convolution, vectorised over output channels: a tile is kFrames output frames × one group of
// channels, its input frames read from a zero-padded copy of the row. Each output is one chain of fma over ascending
// (c_in, k_f, k_t), and frames past a row's output length are not computed.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_shared.h"

namespace asrkern::cpu {
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
int64_t conv_direct_padded_frames(const MaskedConv2d<T>& a) {
  return (ceil_div(a.out_frames, ConvTile<T>::kFrames) * ConvTile<T>::kFrames - 1) * a.stride_frames + a.kernel_frames;
}

template <class T>
int64_t conv_direct_scratch_size(const MaskedConv2d<T>& a) {
  return a.batch * a.in_channels * a.in_bins * conv_direct_padded_frames(a);
}

template <class T>
int64_t conv_direct_packed_size(const MaskedConv2d<T>& a) {
  return ceil_div(a.out_channels, ConvTile<T>::kChannels) * ConvTile<T>::kChannels * a.in_channels * a.kernel_bins *
         a.kernel_frames;
}

// packed: [group of kChannels][in_channels · kernel_bins · kernel_frames][channel], zero beyond out_channels.
template <class T>
void conv_direct_pack(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* weight, T* packed) {
  constexpr int kChannels = ConvTile<T>::kChannels;
  const int64_t taps = a.in_channels * a.kernel_bins * a.kernel_frames, out_channels = a.out_channels;
  parallel_for(pool, ceil_div(out_channels, kChannels), [=](int64_t group) {
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t i = 0; i < kChannels; ++i) {
        const int64_t channel = group * kChannels + i;
        packed[(group * taps + tap) * kChannels + i] = channel < out_channels ? weight[channel * taps + tap] : T(0);
      }
  });
}

// kFrames output frames from `frame` of one output bin, one group of channels.
template <class T>
void conv_direct_tile(const MaskedConv2d<T>& a, int64_t row, int64_t group, int64_t bin, int64_t frame,
                      int64_t frames) {
  using V = Vec<T>;
  using Tile = ConvTile<T>;
  const int64_t padded_frames = conv_direct_padded_frames(a);
  int64_t first_bin, k_begin, k_end;
  masked_conv2d_bins(a, bin, first_bin, k_begin, k_end);
  const int64_t taps = a.in_channels * a.kernel_bins * a.kernel_frames, stride = a.stride_frames;
  V acc[Tile::kFrames][Tile::kVecs];
  for (int m = 0; m < Tile::kFrames; ++m)
    for (int v = 0; v < Tile::kVecs; ++v) acc[m][v] = V::set1(0);
  for (int64_t c = 0; c < a.in_channels; ++c)
    for (int64_t k = k_begin; k < k_end; ++k) {
      const T* x = a.scratch + ((row * a.in_channels + c) * a.in_bins + first_bin + k) * padded_frames + frame * stride;
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
  for (int m = 0; m < Tile::kFrames; ++m)
    for (int v = 0; v < Tile::kVecs; ++v) acc[m][v].store(values[m] + v * V::kWidth);
  masked_conv2d_store(a, row, group * Tile::kChannels, Tile::kChannels, bin, frame, frames, values[0], Tile::kChannels);
}

template <class T>
void conv_direct_run(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  constexpr int kFrames = ConvTile<T>::kFrames;
  const int64_t padded_frames = conv_direct_padded_frames(a), runs = a.in_channels * a.in_bins;
  parallel_for(pool, a.batch * runs, [&](int64_t task) {
    masked_conv2d_pad(a, task / runs, task % runs, 1, padded_frames, a.scratch + task * padded_frames);
  });
  const int64_t groups = ceil_div(a.out_channels, ConvTile<T>::kChannels);
  parallel_for(pool, a.batch * a.out_bins, [&](int64_t task) {
    // Rows innermost: a thread's contiguous share of the tasks then has long and short rows alike.
    const int64_t row = task % a.batch, bin = task / a.batch, length = a.output_lengths[row];
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t frame = 0; frame < length; frame += kFrames)
        conv_direct_tile(a, row, group, bin, frame, length - frame < kFrames ? length - frame : kFrames);
    masked_conv2d_zero_tail(a, row, bin);
  });
}

}  // namespace
}  // namespace asrkern::cpu
