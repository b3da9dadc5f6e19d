// Lookup in hash tables with 64-bit keys: open addressing, linear probing, one array, so that a lookup is one cache
// miss and a table is one tensor. Two layouts: 64-bit payloads in slots of 16 bytes, 16-bit payloads in slots of 8.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

struct HashSlot {
  uint64_t key;  // 0: empty
  uint64_t payload;
};

// A key is spread over all 64 bits (one to one): the upper ones say where the search begins, the lower 48 are what
// small slots compare.
ASRKERN_HOST_DEVICE inline uint64_t hash_mix(uint64_t key) {
  key ^= key >> 32;
  return key * 0x9e3779b97f4a7c15ull;
}

ASRKERN_HOST_DEVICE inline uint64_t hash_start(uint64_t mixed, uint64_t size) {
#ifdef __CUDA_ARCH__
  return __umul64hi(mixed, size);
#else
  return uint64_t((unsigned __int128)mixed * size >> 64);
#endif
}

ASRKERN_HOST_DEVICE inline void prefetch(const void* address) {
#ifndef __CUDA_ARCH__
  __builtin_prefetch(address);
  // Without a side effect GCC drops calls of functions that do nothing but prefetch.
  asm volatile("" : : "r"(address));
#else
  (void)address;
#endif
}

// At least one slot is empty, or every lookup of a missing key passes over the whole table.
struct HashTable {
  const HashSlot* slots;  // [size]
  uint64_t size;

  ASRKERN_HOST_DEVICE bool find(uint64_t key, uint64_t& payload) const {
    key += key == 0;
    const uint64_t start = hash_start(hash_mix(key), size);
    for (uint64_t at = start, end = size; at < end;) {
      const HashSlot slot = slots[at];
      if (slot.key == key) {
        payload = slot.payload;
        return true;
      }
      if (slot.key == 0) return false;
      if (++at == size) at = 0, end = start;
    }
    return false;
  }

  ASRKERN_HOST_DEVICE void prefetch_key(uint64_t key) const {
    prefetch(slots + hash_start(hash_mix(key + (key == 0)), size));
  }
};

// A slot: 48 bits of the mixed key above 16 bits of payload; 0: empty. A missing key is taken for a present one with a
// probability of about 2^-47.
struct SmallHashTable {
  const uint64_t* slots;  // [size]
  uint64_t size;

  ASRKERN_HOST_DEVICE static uint64_t check_bits(uint64_t mixed) {
    const uint64_t low = mixed << 16;
    return low ? low : 1ull << 16;
  }

  ASRKERN_HOST_DEVICE bool find(uint64_t key, uint64_t& payload) const {
    const uint64_t mixed = hash_mix(key), check = check_bits(mixed), start = hash_start(mixed, size);
    for (uint64_t at = start, end = size; at < end;) {
      const uint64_t slot = slots[at];
      if ((slot ^ check) < 1ull << 16) {
        payload = slot & 0xffff;
        return true;
      }
      if (slot == 0) return false;
      if (++at == size) at = 0, end = start;
    }
    return false;
  }

  ASRKERN_HOST_DEVICE void prefetch_key(uint64_t key) const { prefetch(slots + hash_start(hash_mix(key), size)); }
};

}  // namespace asrkern
