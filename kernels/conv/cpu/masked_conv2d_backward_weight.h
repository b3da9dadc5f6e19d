// The gradient of masked_conv2d's weight: of channels o and c, bin k and frame j of the kernel, the sum over rows, bins
// and frames of grad[row][o][bin][t] · input[row][c][bin · stride_bins + k − padding_bins][t · stride_frames + j −
// padding_frames].
//
// Output channels are the lanes. A tile has the sums of one group of channels and some taps, pairs (c, j), in
// registers, over a block of frames. One task adds up the blocks of many tiles, all of which read the same gradients
// while these are in the L1 cache. How the sums are divided depends on the shape alone: bits do not depend on the
// number of threads.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_shared.h"

namespace asrkern::cpu {
namespace {

template <class T>
struct WeightGradient {
  static constexpr int kSums = 12;  // registers of a tile
  static constexpr int kMostVecs = 4;
  static constexpr int64_t kFrames = 128;      // of a block
  static constexpr int64_t kTaps = 2048;       // of a task, about: its sums then stay in the L2 cache
  static constexpr int64_t kEnoughTasks = 32;  // fewer are divided by rows and bins
};

// How the work is divided.
template <class T>
struct WeightGradientPlan {
  using W = WeightGradient<T>;
  int vecs;                            // vectors of a group of output channels: 1, 2 or 4
  int64_t lanes, groups;               // channels of a group; groups
  int64_t channels, channel_blocks;    // input channels of a task; such blocks
  int64_t taps;                        // of one kernel bin in a task, rounded up to whole tiles
  int64_t units, shares;               // rows · output bins; tasks that have every shares-th of them
  int64_t block_frames, input_frames;  // frames of a block, and of the input under it

  explicit WeightGradientPlan(const MaskedConv2d<T>& a) {
    const int64_t wide = ceil_div(a.out_channels, Vec<T>::kWidth);
    vecs = wide < 2 ? 1 : wide < 3 ? 2 : W::kMostVecs;
    lanes = vecs * Vec<T>::kWidth;
    groups = ceil_div(a.out_channels, lanes);
    const int64_t most = ceil_div(ceil_div(W::kTaps, a.kernel_bins), a.kernel_frames);
    channel_blocks = ceil_div(a.in_channels, most);
    channels = ceil_div(a.in_channels, channel_blocks);
    channel_blocks = ceil_div(a.in_channels, channels);
    const int64_t tile = W::kSums / vecs;
    taps = ceil_div(channels * a.kernel_frames, tile) * tile;
    units = a.batch * a.out_bins;
    const int64_t wanted = ceil_div(W::kEnoughTasks, groups * channel_blocks);
    shares = wanted < units ? wanted : units;
    block_frames = a.out_frames < W::kFrames ? a.out_frames : W::kFrames;
    input_frames = (block_frames - 1) * a.stride_frames + a.kernel_frames;
  }

  int64_t tasks() const { return groups * channel_blocks * shares; }
  // [kernel_bins][taps][lanes]
  int64_t task_sums(const MaskedConv2d<T>& a) const { return a.kernel_bins * taps * lanes; }
  // Of a worker: gradients [block_frames][lanes], and input [channels][input_frames].
  int64_t block_size() const { return block_frames * lanes + channels * input_frames; }
};

template <class T>
int64_t masked_conv2d_backward_weight_scratch_size(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  const WeightGradientPlan<T> plan(a);
  return plan.tasks() * plan.task_sums(a) + pool.threads * plan.block_size();
}

// sums[tap][lane] += Σ_t grad[t][lane] · x[tap][t · stride].
template <class T, int kVecs>
void weight_gradient_tile(const T* grad, int64_t frames, const T* const* x, int64_t stride, T* sums) {
  using V = Vec<T>;
  constexpr int kTaps = WeightGradient<T>::kSums / kVecs;
  V acc[kTaps][kVecs];
  for (int i = 0; i < kTaps; ++i)
    for (int v = 0; v < kVecs; ++v) acc[i][v] = V::set1(0);
  for (int64_t t = 0; t < frames; ++t, grad += kVecs * V::kWidth) {
    V g[kVecs];
    for (int v = 0; v < kVecs; ++v) g[v] = V::load(grad + v * V::kWidth);
    for (int i = 0; i < kTaps; ++i) {
      const V value = V::set1(x[i][t * stride]);
      for (int v = 0; v < kVecs; ++v) acc[i][v] = fma(value, g[v], acc[i][v]);
    }
  }
  for (int i = 0; i < kTaps; ++i)
    for (int v = 0; v < kVecs; ++v, sums += V::kWidth) (V::load(sums) + acc[i][v]).store(sums);
}

// The tiles of one kernel bin over one block of frames. input: a channel's frames are `step` behind those of the one
// before. sums: [taps][lanes].
template <class T, int kVecs>
void weight_gradient_block(const MaskedConv2d<T>& a, const WeightGradientPlan<T>& plan, int64_t channels, const T* grad,
                           int64_t frames, const T* input, int64_t step, T* sums) {
  constexpr int kTaps = WeightGradient<T>::kSums / kVecs;
  const int64_t taps = channels * a.kernel_frames;
  int64_t channel = 0, frame = 0;
  for (int64_t first = 0; first < taps; first += kTaps) {
    const T* x[kTaps];
    for (int i = 0; i < kTaps; ++i) {
      // Sums beyond the last tap are of the last one, and nobody reads them.
      x[i] = input + channel * step + frame;
      if (first + i + 1 < taps && ++frame == a.kernel_frames) frame = 0, ++channel;
    }
    weight_gradient_tile<T, kVecs>(grad, frames, x, a.stride_frames, sums + first * plan.lanes);
  }
}

// `frames` frames of the input from `first` on, which may be below 0; 0 outside of the row.
template <class T>
void weight_gradient_copy(const T* from, int64_t first, int64_t frames, int64_t length, T* to) {
  const int64_t before = first < 0 ? (-first < frames ? -first : frames) : 0;
  const int64_t left = length - first, there = left < before ? before : left < frames ? left : frames;
  for (int64_t i = 0; i < before; ++i) to[i] = T(0);
  for (int64_t i = before; i < there; ++i) to[i] = from[first + i];
  for (int64_t i = there; i < frames; ++i) to[i] = T(0);
}

// sums: [kernel_bins][taps][lanes]. block: scratch [block_size].
template <class T>
void weight_gradient_task(const MaskedConv2d<T>& a, const WeightGradientPlan<T>& plan, int64_t task, const T* grad,
                          T* block, T* sums) {
  const int64_t share = task % plan.shares, rest = task / plan.shares;
  const int64_t first_channel = rest % plan.channel_blocks * plan.channels, group = rest / plan.channel_blocks;
  const int64_t left = a.in_channels - first_channel, channels = left < plan.channels ? left : plan.channels;
  const int64_t first_output = group * plan.lanes, outputs_left = a.out_channels - first_output;
  const int outputs = int(outputs_left < plan.lanes ? outputs_left : plan.lanes);
  const int64_t out_plane = a.out_bins * a.out_frames;
  const auto run = plan.vecs == 1   ? weight_gradient_block<T, 1>
                   : plan.vecs == 2 ? weight_gradient_block<T, 2>
                                    : weight_gradient_block<T, 4>;
  T* const gradients = block;
  T* const input = block + plan.block_frames * plan.lanes;
  for (int64_t i = 0; i < plan.task_sums(a); ++i) sums[i] = T(0);
  for (int64_t unit = share; unit < plan.units; unit += plan.shares) {
    const int64_t row = unit / a.out_bins, bin = unit % a.out_bins;
    int64_t first_bin, k_begin, k_end;
    masked_conv2d_bins(a, bin, first_bin, k_begin, k_end);
    // Blocks of about the same size.
    const int64_t length = a.output_lengths[row], blocks = ceil_div(length, plan.block_frames);
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t frame = i * length / blocks, frames = (i + 1) * length / blocks - frame;
      const int64_t first = frame * a.stride_frames - a.padding_frames;
      const int64_t input_frames = (frames - 1) * a.stride_frames + a.kernel_frames;
      const bool inside = first >= 0 && first + input_frames <= a.lengths[row];
      transpose(grad + (row * a.out_channels + first_output) * out_plane + bin * a.out_frames + frame, out_plane,
                outputs, int(plan.lanes), frames, gradients, plan.lanes);
      for (int64_t k = k_begin; k < k_end; ++k) {
        const T* x = a.input + ((row * a.in_channels + first_channel) * a.in_bins + first_bin + k) * a.in_frames;
        T* const to = sums + k * plan.taps * plan.lanes;
        if (inside) {
          run(a, plan, channels, gradients, frames, x + first, a.in_bins * a.in_frames, to);
          continue;
        }
        for (int64_t c = 0; c < channels; ++c)
          weight_gradient_copy(x + c * a.in_bins * a.in_frames, first, input_frames, a.lengths[row],
                               input + c * plan.input_frames);
        run(a, plan, channels, gradients, frames, input, plan.input_frames, to);
      }
    }
  }
}

// grad: [batch, out_channels, out_bins, out_frames]; what is beyond output_lengths is not read. weight, bias, scale,
// shift, the bounds, the pool and output of `a` are not used. grad_weight: [out_channels, in_channels, kernel_bins,
// kernel_frames].
template <class T>
void masked_conv2d_backward_weight(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* grad, T* grad_weight) {
  const WeightGradientPlan<T> plan(a);
  const int64_t task_sums = plan.task_sums(a);
  T* const all_sums = a.scratch;
  T* const blocks = all_sums + plan.tasks() * task_sums;
  parallel_for(pool, pool.threads, [&](int64_t worker) {
    for (int64_t task = worker; task < plan.tasks(); task += pool.threads)
      weight_gradient_task(a, plan, task, grad, blocks + worker * plan.block_size(), all_sums + task * task_sums);
  });
  parallel_for(pool, a.out_channels, [&](int64_t channel) {
    const int64_t group = channel / plan.lanes, lane = channel % plan.lanes;
    T* to = grad_weight + channel * a.in_channels * a.kernel_bins * a.kernel_frames;
    for (int64_t c = 0; c < a.in_channels; ++c) {
      const int64_t task = (group * plan.channel_blocks + c / plan.channels) * plan.shares;
      for (int64_t k = 0; k < a.kernel_bins; ++k)
        for (int64_t j = 0; j < a.kernel_frames; ++j) {
          const T* sums = all_sums + task * task_sums +
                          (k * plan.taps + c % plan.channels * a.kernel_frames + j) * plan.lanes + lane;
          T total = T(0);
          for (int64_t share = 0; share < plan.shares; ++share) total += sums[share * task_sums];
          *to++ = total;
        }
    }
  });
}

}  // namespace
}  // namespace asrkern::cpu
