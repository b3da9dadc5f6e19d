// Compiled with AVX-512 F, BW, DQ and VL.
#include "kernels/conv/cpu/dispatch.h"

namespace asrkern::cpu {

const ConvKernels<float> kAvx512ConvKernels = make_conv_kernels<float>();

}  // namespace asrkern::cpu
