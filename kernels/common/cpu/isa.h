// The choice between instruction sets at run time, one for all kernels.
#pragma once

namespace asrkern::cpu {

enum class Isa { kScalar, kAvx2, kAvx512 };

// ASRKERN_CPU_ISA if set, else the best that this CPU has and that is trusted (AVX-512: see CMakeLists.txt). Decided
// once. Throws std::runtime_error if the variable names an unknown ISA or one that this CPU does not have.
Isa active_isa();
const char* isa_name(Isa isa);

}  // namespace asrkern::cpu
