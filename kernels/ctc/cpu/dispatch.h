// The CTC decoder's kernels in one instruction set (ISA), as a table of functions. All ISAs give the same bits.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_serial_beam.h"

namespace asrkern::cpu {

struct CtcKernels {
  // Takes the next frame. The tree must have room for beam_width more prefixes and for twice as many alignments. After
  // an error the beam is as it was.
  CtcError (*step)(CtcSerialBeam&, const ContextModel&, const CtcBeamOptions&, const float* log_probs);
  // Checks of arrays from outside; see array_checks.h.
  bool (*ascends)(const int32_t* values, int64_t count);
  bool (*all_below)(const int32_t* values, int64_t count, uint32_t limit);
  bool (*all_scores)(const float* values, int64_t count);
  bool (*masks_are_differences)(const int64_t* masks, int64_t count, const int32_t* begin, const uint64_t* sums);
};

extern const CtcKernels kScalarCtcKernels, kAvx2CtcKernels, kAvx512CtcKernels;

// The table of the active ISA.
const CtcKernels& ctc_kernels();

}  // namespace asrkern::cpu
