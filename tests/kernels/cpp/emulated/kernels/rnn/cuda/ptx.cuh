// The device of kernels/rnn/cuda/ptx.cuh on the CPU: the threads of a block are fibers, of which one runs at a time,
// until it waits for its block or its warp.
#pragma once

#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/rnn/element.h"
#include "kernels/rnn/mma_fragments.h"
#include "tests/kernels/cpp/software_mma.h"

#define __device__

namespace asrkern {
namespace cuda {

struct Index {
  unsigned x;
};

enum class FiberState { kRuns, kWaitsForBlock, kWaitsForWarp, kEnded };

// A copy under way: what has not arrived is NaN.
struct Copy {
  Words* to;
  Words words;
};

struct Fiber {
  ucontext_t context;
  FiberState state = FiberState::kRuns;
  std::vector<char> stack = std::vector<char>(160 << 10);
  std::vector<Copy> copies;
  std::deque<std::vector<Copy>> groups;
};

struct Warp {
  uint32_t a[32][4], b[32][2];
  float sums[32][4];
};

struct EmulatedBlock {
  unsigned index;
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  unsigned current = 0;

  void leave(FiberState state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    swapcontext(&fiber.context, &scheduler);
  }
};

inline thread_local EmulatedBlock* this_block = nullptr;

#define threadIdx (::asrkern::cuda::Index{::asrkern::cuda::this_block->current})
#define blockIdx (::asrkern::cuda::Index{::asrkern::cuda::this_block->index})

struct alignas(8) float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

inline void __syncthreads() { this_block->leave(FiberState::kWaitsForBlock); }
inline int __shfl_sync(unsigned, int value, int) { return value; }  // of values that all lanes share

template <class T>
void mma(T, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const unsigned lane = threadIdx.x % 32;
  Warp& warp = this_block->warps[threadIdx.x / 32];
  std::memcpy(warp.a[lane], a, sizeof(a));
  std::memcpy(warp.b[lane], b, sizeof(b));
  this_block->leave(FiberState::kWaitsForWarp);
  if (lane == 0) {
    std::memset(warp.sums, 0, sizeof(warp.sums));
    software_mma<T>(warp.sums, warp.a, warp.b);
  }
  this_block->leave(FiberState::kWaitsForWarp);
  for (int i = 0; i < 4; ++i) sums[i] += warp.sums[lane][i];
}

// To nearest, ties away from zero.
inline uint32_t to_tf32(float value) { return (bits_of(value) + 0x1000) & ~uint32_t(0x1fff); }

inline int computed_again(int value) { return value; }

// A vector access whose address is not a multiple of its size is an error on the device. The compiler checks accesses
// by type (gru_host.py: -fsanitize=alignment).
inline void expect_aligned(const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(Words) == 0) return;
  std::fprintf(stderr, "a vector of 16 bytes at an address that is no multiple of 16\n");
  std::abort();
}

template <bool>
inline Words load_exchanged(const void* from) {
  expect_aligned(from);
  return *static_cast<const Words*>(from);
}

inline void add_release(uint32_t* counter) {
  std::atomic_ref<uint32_t>(*counter).fetch_add(1, std::memory_order_release);
}

inline uint32_t load_acquire(uint32_t* counter) {
  std::this_thread::yield();
  return std::atomic_ref<uint32_t>(*counter).load(std::memory_order_acquire);
}

inline Fiber& this_fiber() { return this_block->fibers[this_block->current]; }

inline void copy_async(Words* to, const void* from) {
  expect_aligned(to);
  expect_aligned(from);
  this_fiber().copies.push_back({to, *static_cast<const Words*>(from)});
  std::memset(to, 0xff, sizeof(*to));
}

inline void end_copies() {
  this_fiber().groups.push_back(std::move(this_fiber().copies));
  this_fiber().copies.clear();
}

template <int kPending>
inline void wait_for_copies() {
  std::deque<std::vector<Copy>>& groups = this_fiber().groups;
  for (; int(groups.size()) > kPending; groups.pop_front())
    for (const Copy& copy : groups.front()) *copy.to = copy.words;
}

}  // namespace cuda
}  // namespace asrkern
