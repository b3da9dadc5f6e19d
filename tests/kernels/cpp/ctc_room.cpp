// The threads and the bytes of shared memory that a block of kernels/ctc/cuda/ctc_beam_search.cu takes, a line a
// search:
//
//   ctc_room BEAM_WIDTH VOCABULARY FRAMES  [BEAM_WIDTH …]
#include <cstdio>
#include <cstdlib>

#include "kernels/ctc/ctc_beam_search.h"
#include "tests/kernels/cpp/cuda_block.h"
// After what stands in for CUDA.
#include "kernels/common/cuda/block_team.cuh"

int main(int count, char** arguments) {
  for (int i = 1; i + 2 < count; i += 3) {
    const asrkern::CtcBeamPlan plan =
        asrkern::ctc_beam_plan(std::atoi(arguments[i]), std::atoi(arguments[i + 1]), std::atoi(arguments[i + 2]));
    const long long bytes = (long long)(sizeof(asrkern::cuda::BlockTeam::Parts)) + asrkern::ctc_fast_bytes(plan);
    std::printf("%d %lld\n", plan.threads, bytes);
  }
}
