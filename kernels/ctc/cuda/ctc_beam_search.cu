// CTC beam search with a language model: a block for each utterance, all frames in one launch. The algorithm is in
// kernels/ctc/ctc_beam_search.h, which tests run on the CPU.
#include <cuda_runtime.h>

#include "kernels/common/cuda/block_team.cuh"
#include "kernels/ctc/cuda/ctc_beam_search.h"

namespace asrkern::cuda {
namespace {

constexpr int kMaxThreads = 512;

__global__ void __launch_bounds__(kMaxThreads, 1) ctc_beam_search_row(const __grid_constant__ CtcBeamSearch search) {
  extern __shared__ __align__(16) char shared[];
  BlockTeam team(*reinterpret_cast<BlockTeam::Parts*>(shared));
  ctc_search_row(team, search, blockIdx.x, shared + sizeof(BlockTeam::Parts));
}

}  // namespace

int ctc_beam_search_shared_bytes(int device, int64_t* bytes) {
  int most = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  *bytes = most;
  return int(error);
}

int64_t ctc_beam_search_shared_bytes(const CtcBeamPlan& plan) {
  return int64_t(sizeof(BlockTeam::Parts)) + ctc_fast_bytes(plan);
}

int ctc_beam_search(const CtcBeamSearch& search, void* stream) {
  if (search.rows == 0) return cudaSuccess;
  if (search.plan.threads > kMaxThreads || search.plan.threads % BlockTeam::kWarp) return cudaErrorInvalidValue;
  // All the shared memory that a block may have, not what this search takes: other threads may launch larger searches
  // between this call and the launch.
  int device = 0;
  int64_t most = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return int(error);
  if (const int error = ctc_beam_search_shared_bytes(device, &most)) return error;
  if (const cudaError_t error =
          cudaFuncSetAttribute(ctc_beam_search_row, cudaFuncAttributeMaxDynamicSharedMemorySize, int(most)))
    return int(error);
  ctc_beam_search_row<<<unsigned(search.rows), unsigned(search.plan.threads),
                        size_t(ctc_beam_search_shared_bytes(search.plan)), static_cast<cudaStream_t>(stream)>>>(search);
  return int(cudaGetLastError());
}

}  // namespace asrkern::cuda
