// Compiled with AVX2 and FMA.
#include "kernels/conv/cpu/dispatch.h"

namespace asrkern::cpu {

const ConvKernels<float> kAvx2ConvKernels = make_conv_kernels<float>();

}  // namespace asrkern::cpu
