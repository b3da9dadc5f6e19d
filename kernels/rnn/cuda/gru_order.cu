#include <cuda_runtime.h>

#include "kernels/rnn/cuda/gru.h"

namespace asrkern::cuda {
namespace {

constexpr int kThreads = 1024, kLengthsAtOnce = 512;

struct SomeLengths {
  int32_t values[kLengthsAtOnce];
};

// Runs as one thread block.
__global__ void order_rows(const GruOrder a, const int64_t* lengths) {
  for (int i = threadIdx.x; i < a.rows && !a.packed; i += kThreads) {
    const int64_t length = lengths ? lengths[i] : a.steps;
    a.given[i] = int32_t(length < 0 ? 0 : length > a.steps ? a.steps : length);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < a.rows; i += kThreads) {
    const int place = sorted_place(a.given, a.rows, i);
    a.order[place] = i;
    a.lengths[place] = a.given[i];
  }
  __syncthreads();
  for (int t = threadIdx.x; t < a.steps; t += kThreads) {
    a.active[t] = active_rows(a.lengths, a.rows, t);
    if (a.packed) a.offsets[t] = frames_before(a.lengths, a.rows, t);
  }
}

__global__ void store(const SomeLengths lengths, int count, int32_t* stored) {
  if (threadIdx.x < count) stored[threadIdx.x] = lengths.values[threadIdx.x];
}

// Runs as one thread block for each frame.
template <class Piece>
__global__ void copy_frames(const ValidFrames a) {
  const int frame = blockIdx.x;
  const int row = a.batch_first ? frame / a.steps : frame % a.rows;
  const int t = a.batch_first ? frame % a.steps : frame / a.rows;
  const bool valid = t < a.lengths[row];
  const int64_t pieces = a.frame_bytes / int64_t(sizeof(Piece));
  const Piece* from = static_cast<const Piece*>(a.values) + frame * pieces;
  Piece* to = static_cast<Piece*>(a.copy) + frame * pieces;
  for (int64_t i = threadIdx.x; i < pieces; i += blockDim.x) to[i] = valid ? from[i] : Piece{};
}

}  // namespace

int gru_order(const GruOrder& args, const int64_t* lengths, void* stream) {
  order_rows<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args, lengths);
  return cudaGetLastError();
}

int store_lengths(const int32_t* lengths, int rows, int32_t* stored, void* stream) {
  for (int begin = 0; begin < rows; begin += kLengthsAtOnce) {
    SomeLengths some = {};
    const int count = rows - begin < kLengthsAtOnce ? rows - begin : kLengthsAtOnce;
    for (int i = 0; i < count; ++i) some.values[i] = lengths[begin + i];
    store<<<1, kLengthsAtOnce, 0, static_cast<cudaStream_t>(stream)>>>(some, count, stored + begin);
    if (const cudaError_t error = cudaGetLastError()) return error;
  }
  return cudaSuccess;
}

int copy_valid_frames(const ValidFrames& args, void* stream) {
  const unsigned frames = unsigned(args.rows) * unsigned(args.steps);
  const auto queue = static_cast<cudaStream_t>(stream);
  const bool whole = args.frame_bytes % 16 == 0 && reinterpret_cast<uintptr_t>(args.values) % 16 == 0 &&
                     reinterpret_cast<uintptr_t>(args.copy) % 16 == 0;
  if (whole)
    copy_frames<uint4><<<frames, 128, 0, queue>>>(args);
  else
    copy_frames<uint16_t><<<frames, 128, 0, queue>>>(args);
  return cudaGetLastError();
}

}  // namespace asrkern::cuda
