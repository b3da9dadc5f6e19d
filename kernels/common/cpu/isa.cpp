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
    case Isa::kAvx512Vnni:
      return has(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni");
  }
#endif
  return isa == Isa::kScalar;
}

Isa choose() {
  const char* forced = std::getenv("ASRKERN_CPU_ISA");
  if (!forced || !*forced) {
#if defined(ASRKERN_AVX512_CHECKED)
    for (Isa isa : {Isa::kAvx512Vnni, Isa::kAvx512})
      if (has(isa)) return isa;
#endif
    return has(Isa::kAvx2) ? Isa::kAvx2 : Isa::kScalar;
  }
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni}) {
    if (std::string(forced) != isa_name(isa)) continue;
    if (!has(isa))
      throw std::runtime_error(std::string("ASRKERN_CPU_ISA: expected an ISA that this CPU has, received ") + forced);
    return isa;
  }
  throw std::runtime_error(std::string("ASRKERN_CPU_ISA: expected scalar, avx2, avx512 or avx512_vnni, received ") +
                           forced);
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

const char* isa_name(Isa isa) {
  constexpr const char* kNames[] = {"scalar", "avx2", "avx512", "avx512_vnni"};
  return kNames[int(isa)];
}

}  // namespace asrkern::cpu
