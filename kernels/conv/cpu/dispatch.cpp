#include "kernels/conv/cpu/dispatch.h"

#include "kernels/common/cpu/isa.h"

namespace asrkern::cpu {

template <>
const ConvGradientKernels<float>& conv_gradient_kernels<float>() {
#if defined(ASRKERN_X86)
  if (active_isa() >= Isa::kAvx2) return kAvx2ConvGradientKernels;
#endif
  return kScalarConvGradientKernels;
}

template <>
const ConvGradientKernels<double>& conv_gradient_kernels<double>() {
  return kDoubleConvGradientKernels;
}

}  // namespace asrkern::cpu
