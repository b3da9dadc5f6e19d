// The choice between instruction sets at run time, one for all kernels.
#pragma once

namespace asrkern::cpu {

// Each has what those before it have.
enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Vnni };

// ASRKERN_CPU_ISA if set, else the best that this CPU has and that is trusted (AVX-512: see CMakeLists.txt). Decided
// once. Throws std::runtime_error if the variable names an unknown ISA or one that this CPU does not have.
Isa active_isa();
const char* isa_name(Isa isa);

}  // namespace asrkern::cpu
