// The baseline build.
#include "kernels/conv/cpu/dispatch.h"

namespace asrkern::cpu {

const ConvKernels<float> kScalarConvKernels = make_conv_kernels<float>();
const ConvKernels<double> kDoubleConvKernels = make_conv_kernels<double>();

}  // namespace asrkern::cpu
