// Convolution over (frequency, time) for inference, with a per-channel affine map, a clamp, a max-pool and the time mask
// as its epilogue: y = mask(pool(clamp((conv(x) + bias) · scale + shift))).
//
// Three algorithms, chosen by the kernel's shape alone, so that a row is always computed in the same way: Fourier space
// along time for kernels that are long in time, Winograd's transforms for those of three frames, and direct.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_direct.h"
#include "kernels/conv/cpu/masked_conv2d_overlap_save.h"
#include "kernels/conv/cpu/masked_conv2d_winograd.h"

namespace asrkern::cpu {
namespace {

// From this many taps a phase on, Fourier space takes fewer multiplications by more than its transforms cost.
template <class T>
bool masked_conv2d_overlaps(const MaskedConv2d<T>& a) {
  return a.kernel_frames >= 5 * a.stride_frames && a.kernel_frames <= 16 * a.stride_frames;
}

// With fewer products for each transform, these take longer than they save.
template <class T>
bool masked_conv2d_winograd(const MaskedConv2d<T>& a) {
  return a.kernel_frames == 3 && a.stride_frames == 1 && a.in_channels * a.kernel_bins >= 16 && a.out_channels >= 16;
}

template <class T>
int64_t masked_conv2d_packed_size(const MaskedConv2d<T>& a) {
  if (masked_conv2d_overlaps(a)) return overlap_save_packed_size(a);
  return masked_conv2d_winograd(a) ? winograd_packed_size(a) : conv_direct_packed_size(a);
}

// Whether the pool is another pass, over the convolution's output in the scratch memory.
template <class T>
bool masked_conv2d_pools_after(const MaskedConv2d<T>& a) {
  return a.pools() && !(masked_conv2d_winograd(a) && winograd_pools(a));
}

template <class T>
int64_t masked_conv2d_unpooled_size(const MaskedConv2d<T>& a) {
  return masked_conv2d_pools_after(a) ? a.batch * a.out_channels * a.out_bins * a.out_frames : 0;
}

template <class T>
int64_t masked_conv2d_scratch_size(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  const int64_t unpooled = masked_conv2d_unpooled_size(a);
  if (masked_conv2d_overlaps(a)) return unpooled + overlap_save_scratch_size(pool, a);
  return unpooled + (masked_conv2d_winograd(a) ? winograd_scratch_size(a) : conv_direct_scratch_size(a));
}

// weight: [out_channels, in_channels, kernel_bins, kernel_frames].
template <class T>
void masked_conv2d_pack(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* weight, T* packed) {
  if (masked_conv2d_overlaps(a)) return overlap_save_pack(pool, a, weight, packed);
  masked_conv2d_winograd(a) ? winograd_pack(pool, a, weight, packed) : conv_direct_pack(pool, a, weight, packed);
}

template <class T>
void masked_conv2d(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  if (masked_conv2d_pools_after(a)) {
    MaskedConv2d<T> unpooled = a;
    unpooled.pool_bins = unpooled.pool_frames = 1;
    unpooled.output = a.scratch;
    unpooled.scratch = a.scratch + masked_conv2d_unpooled_size(a);
    masked_conv2d(pool, unpooled);
    return masked_conv2d_pool(pool, a, unpooled.output);
  }
  if (masked_conv2d_overlaps(a)) return overlap_save_run(pool, a);
  masked_conv2d_winograd(a) ? winograd_run(pool, a) : conv_direct_run(pool, a);
}

}  // namespace
}  // namespace asrkern::cpu
