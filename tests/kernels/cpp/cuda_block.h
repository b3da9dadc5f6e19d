// What device code of one block takes from CUDA, on threads of the CPU: to be included before it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#define __device__

struct CudaIndex {
  unsigned x;
};
inline thread_local CudaIndex threadIdx, blockDim;

namespace cuda_block {

constexpr int kWarp = 32;

struct Barrier {
  int size, arrived = 0;
  unsigned round = 0;
};

struct Warp {
  Barrier barrier{kWarp};
  uint32_t values[kWarp];
};

struct Block {
  explicit Block(int threads) : threads(threads), barrier{threads}, warps(threads / kWarp) {}

  void wait(Barrier& at) {
    std::unique_lock lock(mutex);
    if (++at.arrived == at.size) {
      at.arrived = 0;
      ++at.round;
      waiting -= at.size - 1;
      return moved.notify_all();
    }
    ++waiting;
    check();
    moved.wait(lock, [&at, round = at.round] { return at.round != round; });
  }

  void end() {
    std::unique_lock lock(mutex);
    ++ended;
    check();
  }

  // With the lock. On a device such threads would wait for ever, or worse.
  void check() const {
    if (waiting == 0 || waiting + ended < threads) return;
    std::fprintf(stderr, "a barrier that not all threads reach\n");
    std::abort();
  }

  std::mutex mutex;
  std::condition_variable moved;
  int threads, waiting = 0, ended = 0;
  Barrier barrier;
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
      shared.end();
    });
  for (std::thread& thread : all) thread.join();
}

// read(values of the warp's threads) once all are there.
template <class F>
auto exchange(uint32_t value, const F& read) {
  Warp& warp = block->warps[threadIdx.x / kWarp];
  warp.values[threadIdx.x % kWarp] = value;
  block->wait(warp.barrier);
  const auto result = read(warp.values);
  block->wait(warp.barrier);
  return result;
}

}  // namespace cuda_block

inline void __syncthreads() { cuda_block::block->wait(cuda_block::block->barrier); }

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
