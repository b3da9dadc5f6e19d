// Plans and launches the GRU's kernels, forward and backward.
#pragma once

#include "kernels/rnn/cuda/gru.h"
#include "kernels/rnn/cuda/gru_cta.cuh"

namespace asrkern::cuda {

// Walks the epochs first … last - 1.
template <class Args>
using GruKernel = void (*)(Args, int, int);

// The kernel instances for one type, by configuration.
template <bool kForward, class Args>
struct GruKernels {
  GruKernel<Args> of[gru_configs(kForward)];

  int plan(GruType type, int hidden_size, int rows, int directions, GruPlan* result) const {
    int device = 0, major = 0, cooperative = 0, per_multiprocessor = 0;
    GruDevice limits = {};
    if (const cudaError_t error = cudaGetDevice(&device)) return error;
    const auto attribute = [&](int* value, cudaDeviceAttr which) {
      return cudaDeviceGetAttribute(value, which, device);
    };
    if (const cudaError_t error = attribute(&major, cudaDevAttrComputeCapabilityMajor)) return error;
    if (major < 8) return cudaErrorNoKernelImageForDevice;
    if (const cudaError_t error = attribute(&cooperative, cudaDevAttrCooperativeLaunch)) return error;
    if (const cudaError_t error = attribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount)) return error;
    if (const cudaError_t error = attribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin))
      return error;
    const int bytes = value_bytes(type);
    *result = gru_plan(kForward, hidden_size, rows, directions, bytes, limits);
    if (result->persistent) {
      if (const cudaError_t error = allow_shared(*result, limits)) return error;
      if (const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
              &per_multiprocessor, of[result->config], kGruThreads, result->shared_bytes))
        return error;
      if (cooperative && per_multiprocessor * limits.multiprocessors >= result->grid()) return cudaSuccess;
      *result = gru_plan_of(gru_configs(kForward) - 1, kForward, hidden_size, rows, directions, bytes, limits);
    }
    return allow_shared(*result, limits);
  }

  int launch(Args args, int epochs, void* stream) const {
    const GruPlan& plan = args.plan;
    const dim3 grid(plan.grid()), threads(kGruThreads);
    const auto queue = static_cast<cudaStream_t>(stream);
    const int at_once = plan.persistent ? epochs : 1;
    for (args.first_direction = 0; args.first_direction < args.directions; args.first_direction += plan.at_once)
      for (int first = 0; first < epochs; first += at_once) {
        int last = first + at_once;
        void* parameters[] = {&args, &first, &last};
        if (const cudaError_t error =
                plan.persistent
                    ? cudaLaunchCooperativeKernel(of[plan.config], grid, threads, parameters, plan.shared_bytes, queue)
                    : cudaLaunchKernel(of[plan.config], grid, threads, parameters, plan.shared_bytes, queue))
          return error;
      }
    return cudaSuccess;
  }

 private:
  // All that a block may have, not what this plan takes: other threads may plan larger layers before this one's launch.
  cudaError_t allow_shared(const GruPlan& plan, const GruDevice& limits) const {
    return cudaFuncSetAttribute(of[plan.config], cudaFuncAttributeMaxDynamicSharedMemorySize, limits.shared_bytes);
  }
};

}  // namespace asrkern::cuda
