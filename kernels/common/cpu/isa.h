// Chooses the instruction set (ISA) of all kernels at run time.
#pragma once

namespace asrkern::cpu {

// Each has what those before it have.
enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Vnni };

// The ISA that ASRKERN_CPU_ISA names; else the best that this CPU has and that is trusted (AVX-512: see
// CMakeLists.txt). Chosen at the first call. Throws std::runtime_error if the variable names an unknown ISA, or one
// that this CPU lacks.
Isa active_isa();
const char* isa_name(Isa isa);

}  // namespace asrkern::cpu
