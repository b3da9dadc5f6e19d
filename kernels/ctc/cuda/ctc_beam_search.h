// The interface between csrc/ops/ctc_beam_search_cuda.cpp and ctc_beam_search.cu.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_beam_search.h"

namespace asrkern::cuda {

// The bytes of shared memory that a block of this device may have, into `bytes`. Returns a cudaError_t.
int ctc_beam_search_shared_bytes(int device, int64_t* bytes);

// The bytes of shared memory that a search takes.
int64_t ctc_beam_search_shared_bytes(const CtcBeamPlan& plan);

// Queues the search on `stream` (a cudaStream_t), a block for each utterance. Returns the launch's cudaError_t. All
// pointers are to the device's memory; `search` itself is copied.
int ctc_beam_search(const CtcBeamSearch& search, void* stream);

}  // namespace asrkern::cuda
