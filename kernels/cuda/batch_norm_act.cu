#include <cuda_runtime.h>

#include "kernels/cuda/batch_norm_act.h"

namespace asrkern::cuda {
namespace {

__device__ int64_t valid_frames(const BatchNormActInference& a, int64_t row) {
  if (!a.lengths) return a.time;
  const int64_t length = a.lengths[row];
  return length < 0 ? 0 : length > a.time ? a.time : length;
}

// One thread a value, grid-strided: memory-bound, each value is read and written once.
__global__ void normalise(const BatchNormActInference a, int64_t values) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < values; i += step) {
    int64_t channel, row, frame;
    if (a.time_last) {
      frame = i % a.time;
      channel = i / (a.time * a.inner) % a.channels;
      row = i / (a.time * a.inner * a.channels);
    } else {
      channel = i % a.channels;
      const int64_t position = i / a.channels;
      row = a.batch_first ? position / a.time : position % a.batch;
      frame = a.batch_first ? position % a.time : position / a.batch;
    }
    if (frame >= valid_frames(a, row)) {
      a.output[i] = 0.0f;
      continue;
    }
    const float scale = (a.weight ? a.weight[channel] : 1.0f) / sqrtf(a.var[channel] + a.eps);
    const float y = fmaf(a.input[i] - a.mean[channel], scale, a.bias ? a.bias[channel] : 0.0f);
    // Written so that a NaN stays a NaN.
    a.output[i] = y < a.min ? a.min : y > a.max ? a.max : y;
  }
}

__global__ void count_values(const BatchNormActInference a) {
  int64_t count = 0;
  for (int64_t n = 0; n < a.batch; ++n) count += a.count_padding ? a.time : valid_frames(a, n);
  *a.count = count * a.inner;
}

}  // namespace

int batch_norm_act_inference(const BatchNormActInference& args, void* stream) {
  const int64_t values = args.batch * args.channels * args.inner * args.time;
  const auto queue = static_cast<cudaStream_t>(stream);
  constexpr int kThreads = 256;
  const int64_t blocks = (values + kThreads - 1) / kThreads;
  if (values > 0) normalise<<<unsigned(blocks < 65535 ? blocks : 65535), kThreads, 0, queue>>>(args, values);
  count_values<<<1, 1, 0, queue>>>(args);
  return int(cudaGetLastError());
}

}  // namespace asrkern::cuda
