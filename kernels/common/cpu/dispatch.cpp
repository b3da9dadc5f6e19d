#include "kernels/common/cpu/dispatch.h"

namespace asrkern::cpu {

template <>
const Kernels<float>& kernels<float>() {
#if defined(ASRKERN_X86)
  if (active_isa() >= Isa::kAvx512) return kAvx512Kernels;
  if (active_isa() == Isa::kAvx2) return kAvx2Kernels;
#endif
  return kScalarKernels;
}

template <>
const Kernels<double>& kernels<double>() {
  return kDoubleKernels;
}

const Int8Kernels<float>& int8_kernels() {
#if defined(ASRKERN_X86)
  if (active_isa() == Isa::kAvx512Vnni) return kAvx512VnniInt8Kernels;
  if (active_isa() == Isa::kAvx512) return kAvx512Int8Kernels;
  if (active_isa() == Isa::kAvx2) return kAvx2Int8Kernels;
#endif
  return kScalarInt8Kernels;
}

}  // namespace asrkern::cpu
