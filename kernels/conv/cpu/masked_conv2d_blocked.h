// masked_conv2d by direct convolution over blocks of frames and of input channels, for layers of many channels: what a
// block's frames meet is copied once for all output channels, and inputs, weights and sums of a block stay in the
// caches. Each output is the sum of its blocks of input channels, and of a block one chain of fma over ascending
// (c_in, k_f, k_t).
#pragma once

#include <cstring>

#include "kernels/conv/cpu/masked_conv2d.h"

namespace asrkern::cpu {
namespace {

// Of a block's input channels together, whose weights for one group the L1 keeps.
constexpr int kConvBlockTaps = 288;

template <class T>
struct ConvBlock {
  static constexpr int kFrames = 16 * ConvTile<T>::kFrames;
};

// By the layer's shape alone. With few channels there are few products for each value that is copied, and with long
// strides most of what is copied is not met. The last also bounds a block's inputs, and with them ConvTaps' offsets.
template <class T>
bool conv_blocked_pays(const MaskedConv2d<T>& a) {
  return masked_conv2d_algorithm(a) == ConvAlgorithm::kDirect && a.in_channels * a.kernel_bins >= 16 &&
         a.out_channels >= 16 && a.kernel_bins * a.kernel_frames <= kConvBlockTaps &&
         a.stride_frames <= 4 * a.kernel_frames;
}

// Input channels of a block.
template <class T>
int64_t conv_blocked_channels(const MaskedConv2d<T>& a) {
  const int64_t channels = kConvBlockTaps / (a.kernel_bins * a.kernel_frames);
  return channels < a.in_channels ? channels : a.in_channels;
}

// Frames that a block meets.
template <class T>
int64_t conv_blocked_width(const MaskedConv2d<T>& a) {
  return (ConvBlock<T>::kFrames - 1) * a.stride_frames + a.kernel_frames;
}

template <class T>
int64_t conv_blocked_inputs(const MaskedConv2d<T>& a) {
  return conv_blocked_channels(a) * a.kernel_bins * conv_blocked_width(a);
}

template <class T>
int64_t conv_blocked_sums(const MaskedConv2d<T>& a) {
  return ceil_div(a.out_channels, ConvTile<T>::kChannels) * ConvTile<T>::kChannels * ConvBlock<T>::kFrames;
}

template <class T>
int64_t conv_blocked_scratch_size(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  return masked_conv2d_unpooled_size(a) + pool.threads * (conv_blocked_inputs(a) + conv_blocked_sums(a));
}

template <class T>
int64_t conv_blocked_packed_size(const MaskedConv2d<T>& a) {
  return linear_packed_size<T>(a.out_channels, a.in_channels * a.kernel_bins * a.kernel_frames);
}

// packed: [group of kChannels][in_channels · kernel_bins · kernel_frames][channel], as linear.h's panels.
template <class T>
void conv_blocked_pack(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* weight, T* packed) {
  static_assert(LinearTile<T>::kColumns == ConvTile<T>::kChannels);
  linear_pack(pool, weight, false, a.out_channels, a.in_channels * a.kernel_bins * a.kernel_frames, packed);
}

// What a block of frames from `frame` on meets of the channels from `first` on: to [channels][kernel_bins][width], 0
// in the padding and past the row's length. Bins outside of the input are left out.
template <class T>
void conv_blocked_copy(const MaskedConv2d<T>& a, int64_t row, int64_t bin, int64_t frame, int64_t first,
                       int64_t channels, T* to) {
  const int64_t width = conv_blocked_width(a), start = frame * a.stride_frames - a.padding_frames;
  const int64_t before = start < 0 ? (-start < width ? -start : width) : 0;
  const int64_t left = a.lengths[row] - start, end = left < before ? before : (left < width ? left : width);
  int64_t first_bin, k_begin, k_end;
  masked_conv2d_bins(a, bin, first_bin, k_begin, k_end);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t k = k_begin; k < k_end; ++k) {
      const T* from = a.input + ((row * a.in_channels + first + c) * a.in_bins + first_bin + k) * a.in_frames + start;
      T* x = to + (c * a.kernel_bins + k) * width;
      for (int64_t i = 0; i < before; ++i) x[i] = T(0);
      if (end > before) std::memcpy(x + before, from + before, size_t(end - before) * sizeof(T));
      for (int64_t i = end; i < width; ++i) x[i] = T(0);
    }
}

// Of each product of one output, where its factors are: in a block's inputs and in its weights.
struct ConvTaps {
  int32_t input[kConvBlockTaps], weight[kConvBlockTaps];
  int64_t a_channel;  // taps of one
};

template <class T>
void conv_blocked_taps(const MaskedConv2d<T>& a, int64_t bin, ConvTaps& taps) {
  int64_t first_bin, k_begin, k_end, i = 0;
  masked_conv2d_bins(a, bin, first_bin, k_begin, k_end);
  taps.a_channel = (k_end - k_begin) * a.kernel_frames;
  for (int64_t c = 0; c < conv_blocked_channels(a); ++c)
    for (int64_t k = k_begin; k < k_end; ++k)
      for (int64_t t = 0; t < a.kernel_frames; ++t, ++i) {
        taps.input[i] = int32_t((c * a.kernel_bins + k) * conv_blocked_width(a) + t);
        taps.weight[i] = int32_t(((c * a.kernel_bins + k) * a.kernel_frames + t) * ConvTile<T>::kChannels);
      }
}

// The sums of one tile over `channels` channels, added to those before unless it `begins`. x: the first value that it
// meets; w: their weights; next: those that will be wanted after.
template <class T>
void conv_blocked_tile(const ConvTaps& taps, int64_t stride, const T* x, const T* w, const T* next, int64_t channels,
                       bool begins, T* sums) {
  using V = Vec<T>;
  using Tile = ConvTile<T>;
  V acc[Tile::kFrames][Tile::kVecs];
  for (int m = 0; m < Tile::kFrames; ++m)
    for (int v = 0; v < Tile::kVecs; ++v) acc[m][v] = V::set1(0);
  for (int64_t i = 0; i < channels * taps.a_channel; ++i) {
    const T* value = x + taps.input[i];
    const T* weight = w + taps.weight[i];
    __builtin_prefetch(next + taps.weight[i], 0, 2);
    V weights[Tile::kVecs];
    for (int v = 0; v < Tile::kVecs; ++v) weights[v] = V::load(weight + v * V::kWidth);
    for (int m = 0; m < Tile::kFrames; ++m) {
      const V broadcast = V::set1(value[m * stride]);
      for (int v = 0; v < Tile::kVecs; ++v) acc[m][v] = fma(broadcast, weights[v], acc[m][v]);
    }
  }
  for (int m = 0; m < Tile::kFrames; ++m)
    for (int v = 0; v < Tile::kVecs; ++v) {
      T* sum = sums + m * Tile::kChannels + v * V::kWidth;
      (begins ? acc[m][v] : V::load(sum) + acc[m][v]).store(sum);
    }
}

// `frames` frames of one bin of a row, every step-th group of channels. inputs, sums: to hold a block's.
template <class T>
void conv_blocked_block(const MaskedConv2d<T>& a, int64_t row, int64_t bin, int64_t frame, int64_t frames,
                        int64_t first_group, int64_t step, T* inputs, T* sums) {
  using Tile = ConvTile<T>;
  const int64_t groups = ceil_div(a.out_channels, Tile::kChannels), block = conv_blocked_channels(a);
  const int64_t weights = a.kernel_bins * a.kernel_frames * Tile::kChannels;  // of a group and an input channel
  ConvTaps taps;
  conv_blocked_taps(a, bin, taps);
  for (int64_t c = 0; c < a.in_channels; c += block) {
    const int64_t channels = a.in_channels - c < block ? a.in_channels - c : block;
    conv_blocked_copy(a, row, bin, frame, c, channels, inputs);
    for (int64_t group = first_group; group < groups; group += step) {
      const T* w = a.weight + (group * a.in_channels + c) * weights;
      const T* next = group + step < groups ? w + step * a.in_channels * weights : w;
      for (int64_t m = 0; m < frames; m += Tile::kFrames)
        conv_blocked_tile(taps, a.stride_frames, inputs + m * a.stride_frames, w, next, channels, c == 0,
                          sums + (group * ConvBlock<T>::kFrames + m) * Tile::kChannels);
    }
  }
  for (int64_t group = first_group; group < groups; group += step)
    masked_conv2d_store(a, row, group * Tile::kChannels, Tile::kChannels, bin, frame, frames,
                        sums + group * ConvBlock<T>::kFrames * Tile::kChannels, Tile::kChannels);
}

template <class T>
void conv_blocked_run(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  if (a.pools()) {
    MaskedConv2d<T> unpooled = a;
    unpooled.pool_bins = unpooled.pool_frames = 1;
    unpooled.output = a.scratch;
    unpooled.scratch = a.scratch + masked_conv2d_unpooled_size(a);
    conv_blocked_run(pool, unpooled);
    return masked_conv2d_pool(pool, a, unpooled.output);
  }
  constexpr int kFrames = ConvBlock<T>::kFrames;
  const int64_t blocks = ceil_div(a.out_frames, kFrames), groups = ceil_div(a.out_channels, ConvTile<T>::kChannels);
  // Groups of channels are shared out only where blocks are few.
  const int64_t wanted = ceil_div(2 * pool.threads, a.batch * a.out_bins * blocks);
  const int64_t shares = wanted < groups ? wanted : groups, tasks = a.batch * a.out_bins * blocks * shares;
  parallel_for(pool, pool.threads, [&](int64_t worker) {
    T* inputs = a.scratch + worker * (conv_blocked_inputs(a) + conv_blocked_sums(a));
    for (int64_t task = worker; task < tasks; task += pool.threads) {
      const int64_t share = task % shares, frame = task / shares % blocks * kFrames, plane = task / shares / blocks;
      const int64_t row = plane / a.out_bins, bin = plane % a.out_bins, left = a.output_lengths[row] - frame;
      if (left > 0)
        conv_blocked_block(a, row, bin, frame, left < kFrames ? left : kFrames, share, shares, inputs,
                           inputs + conv_blocked_inputs(a));
    }
  });
  parallel_for(pool, a.batch * a.out_bins,
               [&](int64_t task) { masked_conv2d_zero_tail(a, task / a.out_bins, task % a.out_bins); });
}

}  // namespace
}  // namespace asrkern::cpu
