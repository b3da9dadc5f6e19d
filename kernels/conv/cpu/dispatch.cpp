#include "kernels/conv/cpu/dispatch.h"

#include "kernels/common/cpu/isa.h"

namespace asrkern::cpu {

template <>
const ConvKernels<float>& conv_kernels<float>() {
#if defined(ASRKERN_X86)
  if (active_isa() >= Isa::kAvx512) return kAvx512ConvKernels;
  if (active_isa() >= Isa::kAvx2) return kAvx2ConvKernels;
#endif
  return kScalarConvKernels;
}

template <>
const ConvKernels<double>& conv_kernels<double>() {
  return kDoubleConvKernels;
}

}  // namespace asrkern::cpu
