// Convolution over (frequency, time) for inference, with a per-channel affine map, a clamp, a max-pool and the time
// mask as its epilogue: y = mask(pool(clamp((conv(x) + bias) · scale + shift))).
//
// Five algorithms, chosen by the layer's shape alone, so that a row is always computed in the same way: one for filters
// of single channels; else Fourier space along time for kernels that are long in time, Winograd's transforms for those
// of three frames, a matrix product for those of one value, and direct.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_depthwise.h"
#include "kernels/conv/cpu/masked_conv2d_direct.h"
#include "kernels/conv/cpu/masked_conv2d_overlap_save.h"
#include "kernels/conv/cpu/masked_conv2d_pointwise.h"
#include "kernels/conv/cpu/masked_conv2d_winograd.h"

namespace asrkern::cpu {
namespace {

// From this many taps a phase on, Fourier space takes fewer multiplications by more than its transforms cost.
template <class T>
bool masked_conv2d_overlaps(const MaskedConv2d<T>& a) {
  return a.kernel_frames >= 5 * a.stride_frames && a.kernel_frames <= 16 * a.stride_frames;
}

enum class ConvAlgorithm { kDepthwise, kOverlapSave, kWinograd, kPointwise, kDirect };

template <class T>
ConvAlgorithm masked_conv2d_algorithm(const MaskedConv2d<T>& a) {
  if (a.depthwise) return ConvAlgorithm::kDepthwise;
  if (masked_conv2d_overlaps(a)) return ConvAlgorithm::kOverlapSave;
  // With fewer products for each value that is transformed or transposed, these take longer than they save.
  if (a.in_channels * a.kernel_bins < 16 || a.out_channels < 16) return ConvAlgorithm::kDirect;
  if (a.stride_frames != 1) return ConvAlgorithm::kDirect;
  if (a.kernel_frames == 3) return ConvAlgorithm::kWinograd;
  const bool one_value = a.kernel_bins == 1 && a.kernel_frames == 1 && a.stride_bins == 1;
  return one_value && a.padding_bins == 0 && a.padding_frames == 0 ? ConvAlgorithm::kPointwise : ConvAlgorithm::kDirect;
}

template <class T>
int64_t masked_conv2d_packed_size(const MaskedConv2d<T>& a) {
  switch (masked_conv2d_algorithm(a)) {
    case ConvAlgorithm::kDepthwise:
      return depthwise_packed_size(a);
    case ConvAlgorithm::kOverlapSave:
      return overlap_save_packed_size(a);
    case ConvAlgorithm::kWinograd:
      return winograd_packed_size(a);
    case ConvAlgorithm::kPointwise:
      return pointwise_packed_size(a);
    default:
      return conv_direct_packed_size(a);
  }
}

// Whether the pool is another pass, over the convolution's output in the scratch memory.
template <class T>
bool masked_conv2d_pools_after(const MaskedConv2d<T>& a) {
  return a.pools() && !(masked_conv2d_algorithm(a) == ConvAlgorithm::kWinograd && winograd_pools(a));
}

template <class T>
int64_t masked_conv2d_unpooled_size(const MaskedConv2d<T>& a) {
  return masked_conv2d_pools_after(a) ? a.batch * a.out_channels * a.out_bins * a.out_frames : 0;
}

template <class T>
int64_t masked_conv2d_scratch_size(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  const int64_t unpooled = masked_conv2d_unpooled_size(a);
  switch (masked_conv2d_algorithm(a)) {
    case ConvAlgorithm::kDepthwise:
      return unpooled + depthwise_scratch_size(pool, a);
    case ConvAlgorithm::kOverlapSave:
      return unpooled + overlap_save_scratch_size(pool, a);
    case ConvAlgorithm::kWinograd:
      return unpooled + winograd_scratch_size(a);
    case ConvAlgorithm::kPointwise:
      return unpooled + pointwise_scratch_size(pool, a);
    default:
      return unpooled + conv_direct_scratch_size(a);
  }
}

// weight: [out_channels, in_channels (1 of depthwise ones), kernel_bins, kernel_frames].
template <class T>
void masked_conv2d_pack(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* weight, T* packed) {
  switch (masked_conv2d_algorithm(a)) {
    case ConvAlgorithm::kDepthwise:
      return depthwise_pack(pool, a, weight, packed);
    case ConvAlgorithm::kOverlapSave:
      return overlap_save_pack(pool, a, weight, packed);
    case ConvAlgorithm::kWinograd:
      return winograd_pack(pool, a, weight, packed);
    case ConvAlgorithm::kPointwise:
      return pointwise_pack(pool, a, weight, packed);
    default:
      return conv_direct_pack(pool, a, weight, packed);
  }
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
  switch (masked_conv2d_algorithm(a)) {
    case ConvAlgorithm::kDepthwise:
      return depthwise_run(pool, a);
    case ConvAlgorithm::kOverlapSave:
      return overlap_save_run(pool, a);
    case ConvAlgorithm::kWinograd:
      return winograd_run(pool, a);
    case ConvAlgorithm::kPointwise:
      return pointwise_run(pool, a);
    default:
      return conv_direct_run(pool, a);
  }
}

}  // namespace
}  // namespace asrkern::cpu
