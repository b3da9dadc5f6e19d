// BatchNorm with given statistics, a clamp and the time mask on the device, for inference. The interface between
// csrc/ops/batch_norm_act_cuda.cpp and batch_norm_act.cu.
#pragma once

#include <cstdint>

namespace asrkern::cuda {

struct BatchNormActInference {
  int64_t batch, channels, inner, time;  // as in kernels/cpu/batch_norm_act.h
  bool time_last, batch_first, count_padding;
  const int64_t* lengths;  // [batch] on the device, or null; clamped to [0, time]
  const float* input;
  const float* weight;  // [channels] or null: 1
  const float* bias;    // [channels] or null: 0
  const float* mean;    // [channels]
  const float* var;     // [channels]
  float eps, min, max;
  float* output;
  int64_t* count;  // [1] values per channel that are not padding
};

// Queues the work on `stream` (a cudaStream_t); returns the launch's cudaError_t.
int batch_norm_act_inference(const BatchNormActInference& args, void* stream);

}  // namespace asrkern::cuda
