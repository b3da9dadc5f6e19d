// Compiled with AVX-512 (F, BW, DQ, VL) and VNNI, whose instruction multiplies four bytes at once. The sums are
// integers: results are those of isa_avx512.cpp, bit for bit.
#include "kernels/common/cpu/dispatch.h"

namespace asrkern::cpu {

const Int8Kernels<float> kAvx512VnniInt8Kernels = make_int8_kernels<float>();

}  // namespace asrkern::cpu
