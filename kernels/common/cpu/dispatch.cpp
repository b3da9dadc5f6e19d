#include "kernels/common/cpu/dispatch.h"

namespace asrkern::cpu {

template <>
const Kernels<float>& kernels<float>() {
#if defined(ASRKERN_X86)
  if (active_isa() == Isa::kAvx512) return kAvx512Kernels;
  if (active_isa() == Isa::kAvx2) return kAvx2Kernels;
#endif
  return kScalarKernels;
}

template <>
const Kernels<double>& kernels<double>() {
  return kDoubleKernels;
}

}  // namespace asrkern::cpu
