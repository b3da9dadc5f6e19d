// The baseline build.
#include "kernels/conv/cpu/dispatch.h"

namespace asrkern::cpu {

const ConvGradientKernels<float> kScalarConvGradientKernels = make_conv_gradient_kernels<float>();
const ConvGradientKernels<double> kDoubleConvGradientKernels = make_conv_gradient_kernels<double>();

}  // namespace asrkern::cpu
