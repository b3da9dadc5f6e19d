// Compiled with AVX2 and FMA.
#include "kernels/conv/cpu/dispatch.h"

namespace asrkern::cpu {

const ConvGradientKernels<float> kAvx2ConvGradientKernels = make_conv_gradient_kernels<float>();

}  // namespace asrkern::cpu
