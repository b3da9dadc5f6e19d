// Of convolutions, the kernels of the gradients and blocked convolution in one instruction set (ISA), as a table of
// functions. The others are in kernels/common/cpu/dispatch.h.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_backward_weight.h"
#include "kernels/conv/cpu/masked_conv2d_blocked.h"

namespace asrkern::cpu {

// A way to convolve.
template <class T>
struct ConvForward {
  int64_t (*packed_size)(const MaskedConv2d<T>&);
  int64_t (*scratch_size)(const ThreadPool&, const MaskedConv2d<T>&);
  void (*pack)(const ThreadPool&, const MaskedConv2d<T>&, const T* weight, T* packed);
  void (*run)(const ThreadPool&, const MaskedConv2d<T>&);
};

template <class T>
struct ConvKernels {
  int64_t (*backward_weight_scratch_size)(const ThreadPool&, const MaskedConv2d<T>&);
  void (*backward_weight)(const ThreadPool&, const MaskedConv2d<T>&, const T* grad, T* grad_weight);
  bool (*blocked_pays)(const MaskedConv2d<T>&);
  ConvForward<T> blocked;
};

namespace {

template <class T>
constexpr ConvKernels<T> make_conv_kernels() {
  return {masked_conv2d_backward_weight_scratch_size<T>,
          masked_conv2d_backward_weight<T>,
          conv_blocked_pays<T>,
          {conv_blocked_packed_size<T>, conv_blocked_scratch_size<T>, conv_blocked_pack<T>, conv_blocked_run<T>}};
}

}  // namespace

extern const ConvKernels<float> kScalarConvKernels, kAvx2ConvKernels, kAvx512ConvKernels;
extern const ConvKernels<double> kDoubleConvKernels;

// The table of the active ISA.
template <class T>
const ConvKernels<T>& conv_kernels();

}  // namespace asrkern::cpu
