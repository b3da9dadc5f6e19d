// Compiled with AVX-512 F, BW, DQ and VL.
#include "kernels/common/cpu/dispatch.h"

namespace asrkern::cpu {

const Kernels<float> kAvx512Kernels = make_kernels<float>();
const Int8Kernels<float> kAvx512Int8Kernels = make_int8_kernels<float>();

}  // namespace asrkern::cpu
