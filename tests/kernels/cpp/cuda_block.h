// What device code of one block takes from CUDA, on threads of the CPU: to be included before it.
#pragma once

#include <barrier>
#include <cstdint>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#define __device__

struct CudaIndex {
  unsigned x;
};
inline thread_local CudaIndex threadIdx, blockDim;

namespace cuda_block {

constexpr int kWarp = 32;

struct Warp {
  std::barrier<> barrier{kWarp};
  uint32_t values[kWarp];
};

struct Block {
  explicit Block(int threads) : barrier(threads), warps(threads / kWarp) {}
  std::barrier<> barrier;
  std::deque<Warp> warps;
};
inline thread_local Block* block;

// body() on each of `threads` threads, a multiple of 32.
template <class F>
void run(int threads, const F& body) {
  Block shared(threads);
  std::vector<std::thread> all;
  for (int rank = 0; rank < threads; ++rank)
    all.emplace_back([&, rank] {
      threadIdx.x = unsigned(rank);
      blockDim.x = unsigned(threads);
      block = &shared;
      body();
    });
  for (std::thread& thread : all) thread.join();
}

// read(values of the warp's threads) once all are there.
template <class F>
auto exchange(uint32_t value, const F& read) {
  Warp& warp = block->warps[threadIdx.x / kWarp];
  warp.values[threadIdx.x % kWarp] = value;
  warp.barrier.arrive_and_wait();
  const auto result = read(warp.values);
  warp.barrier.arrive_and_wait();
  return result;
}

}  // namespace cuda_block

inline void __syncthreads() { cuda_block::block->barrier.arrive_and_wait(); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  const int lane = int(threadIdx.x % cuda_block::kWarp) ^ mask;
  return T(cuda_block::exchange(uint32_t(value), [lane](const uint32_t* values) { return values[lane]; }));
}

template <class T>
T __shfl_up_sync(unsigned, T value, int delta) {
  const int lane = int(threadIdx.x % cuda_block::kWarp), from = lane >= delta ? lane - delta : lane;
  return T(cuda_block::exchange(uint32_t(value), [from](const uint32_t* values) { return values[from]; }));
}

inline int32_t __reduce_add_sync(unsigned, int32_t value) {
  return cuda_block::exchange(uint32_t(value), [](const uint32_t* values) {
    uint32_t sum = 0;
    for (int lane = 0; lane < cuda_block::kWarp; ++lane) sum += values[lane];
    return int32_t(sum);
  });
}
