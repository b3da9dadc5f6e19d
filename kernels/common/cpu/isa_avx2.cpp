// Compiled with AVX2 and FMA.
#include "kernels/common/cpu/dispatch.h"

namespace asrkern::cpu {

const Kernels<float> kAvx2Kernels = make_kernels<float>();

}  // namespace asrkern::cpu
