// The baseline build, and fp64.
#include "kernels/common/cpu/dispatch.h"

namespace asrkern::cpu {

const Kernels<float> kScalarKernels = make_kernels<float>();
const Int8Kernels<float> kScalarInt8Kernels = make_int8_kernels<float>();
const Kernels<double> kDoubleKernels = make_kernels<double>();

}  // namespace asrkern::cpu
