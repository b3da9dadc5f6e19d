// The CUDA side of the GRU: the interface between csrc/ops/gru_cuda.cpp and gru_fwd.cu, gru_bwd.cu, gru_order.cu.
// Functions return a cudaError_t, queue their work on `stream` (a cudaStream_t) and never wait for the device.
#pragma once

#include <cstdint>

#include "kernels/rnn/gru_walk.h"

namespace asrkern::cuda {

enum class GruType { kFloat, kBf16, kHalf };

constexpr int value_bytes(GruType type) { return type == GruType::kFloat ? 4 : 2; }

// How the current device runs a layer. Persistent only if all thread blocks are sure to run at once. Returns
// cudaErrorNoKernelImageForDevice below compute capability 8.0.
int gru_forward_plan(GruType type, int hidden_size, int rows, int directions, GruPlan* plan);
int gru_backward_plan(GruType type, int hidden_size, int rows, int directions, GruPlan* plan);

int gru_forward(GruType type, const GruForward& args, void* stream);
int gru_backward(GruType type, const GruBackward& args, void* stream);

// What GruBatch points to, on the device.
struct GruOrder {
  int rows, steps;
  bool packed;
  int32_t* given;    // [rows] scratch; if packed, store_lengths fills it
  int32_t* order;    // [rows]
  int32_t* lengths;  // [rows]
  int32_t* active;   // [steps]
  int32_t* offsets;  // [steps], if packed
};

// lengths: [rows] on the device, clamped to [0, steps]; null: all steps, or what store_lengths stored if packed.
int gru_order(const GruOrder& args, const int64_t* lengths, void* stream);

// Copies from the host as arguments of kernels: no copy waits, and a captured graph keeps the values.
int store_lengths(const int32_t* lengths, int rows, int32_t* stored, void* stream);

// Copies a padded input's frames, each of frame_bytes (even), with zeros beyond each row's length. lengths: [rows] in
// the caller's order, clamped (GruOrder::given).
struct ValidFrames {
  int rows, steps;
  bool batch_first;
  const int32_t* lengths;
  int64_t frame_bytes;
  const void* values;
  void* copy;
};
int copy_valid_frames(const ValidFrames& args, void* stream);

}  // namespace asrkern::cuda
