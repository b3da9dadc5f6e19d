// masked_conv2d for kernels of one bin and one frame: linear.h's matrix product over frames, which a block of the row
// transposed makes contiguous. Each output is summed by linear.h's blocks of input channels.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_shared.h"

namespace asrkern::cpu {
namespace {

template <class T>
struct Pointwise {
  static constexpr int kFrames = 48;  // of one block
  static_assert(kFrames % LinearTile<T>::kRows == 0);
};

template <class T>
int64_t pointwise_packed_size(const MaskedConv2d<T>& a) {
  return linear_packed_size<T>(a.out_channels, a.in_channels);
}

template <class T>
int64_t pointwise_scratch_size(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  return pool.threads * Pointwise<T>::kFrames * a.in_channels;
}

template <class T>
void pointwise_pack(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* weight, T* packed) {
  linear_pack(pool, weight, false, a.out_channels, a.in_channels, packed);
}

// `frames` frames of one bin of a row. x: [kFrames][in_channels], to hold them.
template <class T>
void pointwise_block(const MaskedConv2d<T>& a, int64_t row, int64_t bin, int64_t frame, int64_t frames,
                     int64_t first_panel, int64_t step, T* x) {
  constexpr int kColumns = LinearTile<T>::kColumns;
  const int64_t left = a.lengths[row] - frame, there = left < 0 ? 0 : (left < frames ? left : frames);
  const int64_t row_size = a.in_bins * a.in_frames;
  for (int64_t t = there; t < frames; ++t)
    for (int64_t c = 0; c < a.in_channels; ++c) x[t * a.in_channels + c] = T(0);
  if (there > 0)
    transpose(a.input + row * a.in_channels * row_size + bin * a.in_frames + frame, row_size, int(a.in_channels),
              int(a.in_channels), there, x, a.in_channels);
  T values[Pointwise<T>::kFrames][kColumns];
  const T* rows[Pointwise<T>::kFrames];
  T* y[Pointwise<T>::kFrames];
  for (int64_t t = 0; t < frames; ++t) {
    rows[t] = x + t * a.in_channels;
    y[t] = values[t];
  }
  for (int64_t panel = first_panel; panel * kColumns < a.out_channels; panel += step) {
    linear_panel<T>(rows, frames, a.weight + panel * kColumns * a.in_channels, a.in_channels, nullptr, nullptr, false,
                    kColumns, y);
    masked_conv2d_store(a, row, panel * kColumns, kColumns, bin, frame, frames, values[0], kColumns);
  }
}

template <class T>
void pointwise_run(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  constexpr int kFrames = Pointwise<T>::kFrames;
  const int64_t blocks = ceil_div(a.out_frames, kFrames), panels = ceil_div(a.out_channels, LinearTile<T>::kColumns);
  // Panels are shared out only where blocks are few.
  const int64_t wanted = ceil_div(2 * pool.threads, a.batch * a.out_bins * blocks);
  const int64_t shares = wanted < panels ? wanted : panels, tasks = a.batch * a.out_bins * blocks * shares;
  parallel_for(pool, pool.threads, [&](int64_t worker) {
    T* x = a.scratch + worker * kFrames * a.in_channels;
    for (int64_t task = worker; task < tasks; task += pool.threads) {
      const int64_t share = task % shares, frame = task / shares % blocks * kFrames, plane = task / shares / blocks;
      const int64_t row = plane / a.out_bins, bin = plane % a.out_bins, left = a.output_lengths[row] - frame;
      if (left > 0) pointwise_block(a, row, bin, frame, left < kFrames ? left : kFrames, share, shares, x);
    }
  });
  parallel_for(pool, a.batch * a.out_bins,
               [&](int64_t task) { masked_conv2d_zero_tail(a, task / a.out_bins, task % a.out_bins); });
}

}  // namespace
}  // namespace asrkern::cpu
