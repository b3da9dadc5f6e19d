// A block as a team (kernels/common/team.h). Its threads are whole warps.
#pragma once

#include <cstdint>
#include <cstring>

namespace asrkern::cuda {

class BlockTeam {
 public:
  static constexpr int kWarp = 32, kMaxWarps = 32, kPartWords = 4;

  // What the threads exchange, in shared memory. There are two, used in turns: a thread may reach the next collective
  // while others still read the parts of this one. It cannot be two ahead, since each collective has a barrier.
  struct Parts {
    uint32_t words[2][kMaxWarps][kPartWords];
  };

  __device__ explicit BlockTeam(Parts& parts) : parts_(parts) {}

  __device__ int32_t rank() const { return int32_t(threadIdx.x); }
  __device__ int32_t size() const { return int32_t(blockDim.x); }
  __device__ void sync() { __syncthreads(); }

  template <class T, class Op>
  __device__ T reduce(T value, const Op& op) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) value = op(value, shuffle_xor(value, offset));
    publish(value, lane() == 0);
    T result = part<T>(0);
#pragma unroll 1
    for (int warp = 1; warp < warps(); ++warp) result = op(result, part<T>(warp));
    return result;
  }

  __device__ int32_t sum(int32_t count) {
    publish(__reduce_add_sync(~0u, count), lane() == 0);
    return sum_of_warps(warps());
  }

  __device__ int32_t scan(int32_t count, int32_t& all) {
    int32_t upto = count;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int32_t other = __shfl_up_sync(~0u, upto, offset);
      if (lane() >= offset) upto += other;
    }
    publish(upto, lane() == kWarp - 1);
    all = sum_of_warps(warps());
    return sum_of_warps(int(threadIdx.x) / kWarp) + upto - count;
  }

  __device__ void prefetch([[maybe_unused]] const void* address) {
#ifdef __CUDA_ARCH__
    asm volatile("prefetch.global.L1 [%0];" : : "l"(address));
#endif
  }

 private:
  __device__ static int lane() { return int(threadIdx.x) % kWarp; }
  __device__ static int warps() { return int(blockDim.x) / kWarp; }

  template <class T>
  __device__ static T shuffle_xor(const T& value, int offset) {
    constexpr int kWords = sizeof(T) / 4;
    static_assert(sizeof(T) % 4 == 0 && kWords <= kPartWords);
    uint32_t words[kWords];
    memcpy(words, &value, sizeof value);
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = __shfl_xor_sync(~0u, words[i], offset);
    T other;
    memcpy(&other, words, sizeof other);
    return other;
  }

  // One thread of each warp stores the warp's part; afterwards all threads can read the parts of all warps.
  template <class T>
  __device__ void publish(const T& value, bool mine) {
    static_assert(sizeof(T) % 4 == 0 && sizeof(T) / 4 <= kPartWords);
    turn_ ^= 1;
    if (mine) memcpy(parts_.words[turn_][threadIdx.x / kWarp], &value, sizeof value);
    __syncthreads();
  }

  template <class T>
  __device__ T part(int warp) const {
    T value;
    memcpy(&value, parts_.words[turn_][warp], sizeof value);
    return value;
  }

  // The sum of the first `count` warps' parts: each lane reads one.
  __device__ int32_t sum_of_warps(int count) const {
    return __reduce_add_sync(~0u, lane() < count ? part<int32_t>(lane()) : 0);
  }

  Parts& parts_;
  int turn_ = 0;
};

}  // namespace asrkern::cuda
