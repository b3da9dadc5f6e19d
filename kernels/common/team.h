// Threads that work on one thing together: a block of a GPU, or a single thread of the CPU.
//
// A Team has
//   rank(), size()     of this thread and of all;
//   sync()             all have come here, and see what each has written before;
//   reduce(value, op)  op over all threads' values (op: commutative and associative);
//   sum(count)         the same for counts;
//   scan(count, all)   the sum of the threads before this one; all: of all of them;
//   prefetch(address)  starts a load that this thread will wait for.
// All threads call the middle four in the same order; the last three of these are as sync(). Loops share out items as
// `for (i = team.rank(); i < items; i += team.size())`.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/host_device.h"

namespace asrkern {

struct SerialTeam {
  ASRKERN_HOST_DEVICE int32_t rank() const { return 0; }
  ASRKERN_HOST_DEVICE int32_t size() const { return 1; }
  ASRKERN_HOST_DEVICE void sync() {}
  template <class T, class Op>
  ASRKERN_HOST_DEVICE T reduce(const T& value, const Op&) {
    return value;
  }
  ASRKERN_HOST_DEVICE int32_t sum(int32_t count) { return count; }
  ASRKERN_HOST_DEVICE int32_t scan(int32_t count, int32_t& all) {
    all = count;
    return 0;
  }
  ASRKERN_HOST_DEVICE void prefetch(const void*) {}
};

// Writes a value and returns the one before, atomically among the threads of a team.
ASRKERN_HOST_DEVICE inline int32_t team_exchange(int32_t* at, int32_t value) {
#ifdef __CUDA_ARCH__
  return atomicExch_block(at, value);
#else
  return __atomic_exchange_n(at, value, __ATOMIC_RELAXED);
#endif
}

ASRKERN_HOST_DEVICE inline void team_add(uint64_t* at, uint64_t value) {
#ifdef __CUDA_ARCH__
  atomicAdd_block(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
#else
  __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
#endif
}

template <class Team>
ASRKERN_HOST_DEVICE float team_max(Team& team, float value) {
  return team.reduce(value, [](float a, float b) { return a > b ? a : b; });
}

template <class Team, class Value>
ASRKERN_HOST_DEVICE int32_t team_count(Team& team, int32_t items, const Value& counts) {
  int32_t count = 0;
  for (int32_t i = team.rank(); i < items; i += team.size()) count += counts(i);
  return team.sum(count);
}

// Maps floats (no NaN) to unsigned integers with the same order, and back.
ASRKERN_HOST_DEVICE inline uint32_t ordered_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

ASRKERN_HOST_DEVICE inline float from_ordered_bits(uint32_t bits) {
  bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// The k-th largest of value(0) … value(items − 1), 1 ≤ k ≤ items. Bit by bit: the largest number that k values reach.
template <class Team, class Value>
ASRKERN_HOST_DEVICE float team_kth_largest(Team& team, int32_t items, int32_t k, const Value& value) {
  uint32_t reached = 0;
  for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
    const uint32_t probe = reached | bit;
    const int32_t count = team_count(team, items, [&](int32_t i) { return ordered_bits(value(i)) >= probe; });
    if (count < k) continue;
    reached = probe;
    if (count > k) continue;
    uint32_t least = ~0u;  // of those k
    for (int32_t i = team.rank(); i < items; i += team.size()) {
      const uint32_t bits = ordered_bits(value(i));
      if (bits >= probe && bits < least) least = bits;
    }
    reached = team.reduce(least, [](uint32_t a, uint32_t b) { return a < b ? a : b; });
    break;
  }
  return from_ordered_bits(reached);
}

}  // namespace asrkern
