// Compiled with AVX2 and FMA.
#include "kernels/common/cpu/dispatch.h"

namespace asrkern::cpu {

const Kernels<float> kAvx2Kernels = make_kernels<float>();
const Int8Kernels<float> kAvx2Int8Kernels = make_int8_kernels<float>();

}  // namespace asrkern::cpu
