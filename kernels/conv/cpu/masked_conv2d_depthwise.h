// masked_conv2d with a filter of its own for each channel: a channel of a row at a time, over frames. Each output is
// one chain of fma over ascending kernel bins, then kernel frames.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_shared.h"

namespace asrkern::cpu {
namespace {

// Frames of one phase of a padded bin: as many as the last, whole vector of outputs reads.
template <class T>
int64_t depthwise_frames(const MaskedConv2d<T>& a) {
  constexpr int kWidth = Vec<T>::kWidth;
  return ceil_div(a.out_frames, kWidth) * kWidth + (a.kernel_frames - 1) / a.stride_frames;
}

template <class T>
int64_t depthwise_packed_size(const MaskedConv2d<T>& a) {
  return a.out_channels * a.kernel_bins * a.kernel_frames;
}

template <class T>
int64_t depthwise_scratch_size(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  return pool.threads * a.in_bins * a.stride_frames * depthwise_frames(a);
}

template <class T>
void depthwise_pack(const ThreadPool&, const MaskedConv2d<T>& a, const T* weight, T* packed) {
  for (int64_t i = 0; i < depthwise_packed_size(a); ++i) packed[i] = weight[i];
}

// masked_conv2d_pad for frames of which all but the outermost are there.
template <class T>
void depthwise_pad(const MaskedConv2d<T>& a, int64_t row, int64_t channel_and_bin, int64_t frames, T* to) {
  const T* from = a.input + (row * a.in_channels * a.in_bins + channel_and_bin) * a.in_frames;
  const int64_t stride = a.stride_frames, length = a.lengths[row];
  for (int64_t phase = 0; phase < stride; ++phase, to += frames) {
    // Of this phase the frame i is first + i · stride of the row.
    const int64_t first = phase - a.padding_frames;
    int64_t begin = first < 0 ? ceil_div(-first, stride) : 0,
            end = first < length ? ceil_div(length - first, stride) : 0;
    if (end > frames) end = frames;
    if (begin > end) begin = end;
    for (int64_t i = 0; i < begin; ++i) to[i] = T(0);
    if (stride == 1)
      for (int64_t i = begin; i < end; ++i) to[i] = from[first + i];
    else
      for (int64_t i = begin; i < end; ++i) to[i] = from[first + i * stride];
    for (int64_t i = end; i < frames; ++i) to[i] = T(0);
  }
}

// One bin of one channel. x: [in_bins][stride_frames][depthwise_frames].
template <class T>
void depthwise_bin(const MaskedConv2d<T>& a, int64_t row, int64_t channel, int64_t bin, const T* x) {
  using V = Vec<T>;
  const int64_t phase = depthwise_frames(a), valid = a.output_lengths[row];
  int64_t first_bin, begin, end;
  masked_conv2d_bins(a, bin, first_bin, begin, end);
  const V bias = V::set1(a.bias ? a.bias[channel] : T(0)), scale = V::set1(a.scale ? a.scale[channel] : T(1));
  const V shift = V::set1(a.shift ? a.shift[channel] : T(0));
  T* y = a.output + ((row * a.out_channels + channel) * a.out_bins + bin) * a.out_frames;
  for (int64_t t = 0; t < valid; t += V::kWidth) {
    V acc = V::set1(0);
    for (int64_t i = begin; i < end; ++i) {
      const T* from = x + (first_bin + i) * a.stride_frames * phase + t;
      const T* w = a.weight + (channel * a.kernel_bins + i) * a.kernel_frames;
      // Tap j is in phase j % stride_frames, j / stride_frames frames on.
      for (int64_t j = 0, of = 0, on = 0; j < a.kernel_frames; ++j) {
        acc = fma(V::set1(w[j]), V::load(from + of * phase + on), acc);
        if (++of == a.stride_frames) of = 0, ++on;
      }
    }
    const int count = int(valid - t < V::kWidth ? valid - t : V::kWidth);
    clamp(fma(acc + bias, scale, shift), a.min, a.max).store(y + t, count);
  }
  for (int64_t t = valid; t < a.out_frames; ++t) y[t] = T(0);
}

template <class T>
void depthwise_run(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  const int64_t phase = depthwise_frames(a), tasks = a.batch * a.in_channels;
  parallel_for(pool, pool.threads, [&](int64_t worker) {
    T* x = a.scratch + worker * a.in_bins * a.stride_frames * phase;
    for (int64_t task = worker; task < tasks; task += pool.threads) {
      const int64_t row = task / a.in_channels, channel = task % a.in_channels;
      if (a.output_lengths[row] > 0)
        for (int64_t bin = 0; bin < a.in_bins; ++bin)
          depthwise_pad(a, row, channel * a.in_bins + bin, phase, x + bin * a.stride_frames * phase);
      for (int64_t bin = 0; bin < a.out_bins; ++bin) depthwise_bin(a, row, channel, bin, x);
    }
  });
}

}  // namespace
}  // namespace asrkern::cpu
