// The kernels of a convolution's gradients in one instruction set (ISA), as a table of functions. What they have beside
// these is a convolution: kernels/common/cpu/dispatch.h.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_backward_weight.h"

namespace asrkern::cpu {

template <class T>
struct ConvGradientKernels {
  int64_t (*weight_scratch_size)(const ThreadPool&, const MaskedConv2d<T>&);
  void (*weight)(const ThreadPool&, const MaskedConv2d<T>&, const T* grad, T* grad_weight);
};

namespace {

template <class T>
constexpr ConvGradientKernels<T> make_conv_gradient_kernels() {
  return {masked_conv2d_backward_weight_scratch_size<T>, masked_conv2d_backward_weight<T>};
}

}  // namespace

extern const ConvGradientKernels<float> kScalarConvGradientKernels, kAvx2ConvGradientKernels;
extern const ConvGradientKernels<double> kDoubleConvGradientKernels;

// The table of the active ISA; with AVX-512 that of AVX2: one of its own took 0.98 to 1.0 of the time on a Zen 4.
template <class T>
const ConvGradientKernels<T>& conv_gradient_kernels();

}  // namespace asrkern::cpu
