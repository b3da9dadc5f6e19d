#include "kernels/ctc/cpu/dispatch.h"

#include "kernels/common/cpu/isa.h"

namespace asrkern::cpu {

const CtcKernels& ctc_kernels() {
#if defined(ASRKERN_X86)
  if (active_isa() >= Isa::kAvx512) return kAvx512CtcKernels;
  if (active_isa() == Isa::kAvx2) return kAvx2CtcKernels;
#endif
  return kScalarCtcKernels;
}

}  // namespace asrkern::cpu
