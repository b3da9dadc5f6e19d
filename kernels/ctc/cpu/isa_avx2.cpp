// Compiled with AVX2 and FMA.
#define ASRKERN_ONE_ISA
#include "kernels/ctc/cpu/array_checks.h"
#include "kernels/ctc/cpu/ctc_beam_step.h"
#include "kernels/ctc/cpu/dispatch.h"

namespace asrkern::cpu {

const CtcKernels kAvx2CtcKernels = {ctc_beam::step, ascends, all_below, all_scores, masks_are_differences};

}  // namespace asrkern::cpu
