#include "kernels/common/cpu/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace asrkern::cpu {
namespace {

bool has(Isa isa) {
#if defined(ASRKERN_X86)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#endif
  return isa == Isa::kScalar;
}

Isa choose() {
  const char* forced = std::getenv("ASRKERN_CPU_ISA");
  if (!forced || !*forced) {
#if defined(ASRKERN_AVX512_CHECKED)
    if (has(Isa::kAvx512)) return Isa::kAvx512;
#endif
    return has(Isa::kAvx2) ? Isa::kAvx2 : Isa::kScalar;
  }
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (std::string(forced) != isa_name(isa)) continue;
    if (!has(isa))
      throw std::runtime_error(std::string("ASRKERN_CPU_ISA: expected an ISA that this CPU has, received ") + forced);
    return isa;
  }
  throw std::runtime_error(std::string("ASRKERN_CPU_ISA: expected scalar, avx2 or avx512, received ") + forced);
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

const char* isa_name(Isa isa) { return isa == Isa::kScalar ? "scalar" : isa == Isa::kAvx2 ? "avx2" : "avx512"; }

}  // namespace asrkern::cpu
