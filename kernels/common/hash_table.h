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

// Where the search for a key begins: its upper bits, scaled to 0 … size − 1. Keys are hashes already.
ASRKERN_HOST_DEVICE inline uint64_t hash_start(uint64_t key, uint64_t size) {
#ifdef __CUDA_ARCH__
  return __umul64hi(key, size);
#else
  return uint64_t((unsigned __int128)key * size >> 64);
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

// size ≥ 1, and at least one slot is empty, or every search for a missing key passes over the whole table.
struct HashTable {
  const HashSlot* slots;  // [size]
  uint64_t size;

  ASRKERN_HOST_DEVICE const HashSlot* first(uint64_t key) const { return slots + hash_start(key, size); }

  ASRKERN_HOST_DEVICE bool find(uint64_t key, const HashSlot* slot, uint64_t& payload) const {
    for (bool again = true;;) {
      if (slot->key == key) {
        payload = slot->payload;
        return true;
      }
      if (slot->key == 0) return false;
      if (++slot == slots + size) {
        if (!again) return false;
        again = false;
        slot = slots;
      }
    }
  }
};

// A slot: the lower 48 bits of the key above 16 bits of payload; 0: empty. A missing key is taken for a present one
// with a probability of about 2^-47.
struct SmallHashTable {
  const uint64_t* slots;  // [size]
  uint64_t size;

  ASRKERN_HOST_DEVICE static uint64_t check_bits(uint64_t key) {
    const uint64_t low = key << 16;
    return low ? low : 1ull << 16;
  }

  ASRKERN_HOST_DEVICE const uint64_t* first(uint64_t key) const { return slots + hash_start(key, size); }

  ASRKERN_HOST_DEVICE bool find(uint64_t key, const uint64_t* slot, uint64_t& payload) const {
    const uint64_t check = check_bits(key);
    for (bool again = true;;) {
      if ((*slot ^ check) < 1ull << 16) {
        payload = *slot & 0xffff;
        return true;
      }
      if (*slot == 0) return false;
      if (++slot == slots + size) {
        if (!again) return false;
        again = false;
        slot = slots;
      }
    }
  }
};

}  // namespace asrkern
