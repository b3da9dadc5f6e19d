// Lookup in hash tables with 64-bit keys: open addressing in one array, so that a table is one tensor. There are two
// layouts: slots of 16 bytes with 64-bit payloads, and slots of 8 bytes with 16-bit payloads.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

struct HashSlot {
  uint64_t key;  // 0: empty
  uint64_t payload;
};

// How many slots form a group. A search compares all slots of a group at once, so no branch depends on where in it the
// key is. A key that finds its group full stands in a later group. The order of a group's last two slots says whether
// that happened: then, and only then, the last one is the greater. So a search for a missing key mostly ends in the
// first group.
constexpr uint64_t kHashGroup = 4;

ASRKERN_HOST_DEVICE inline uint64_t hash_order(HashSlot slot) { return slot.key; }
ASRKERN_HOST_DEVICE inline uint64_t hash_order(uint64_t slot) { return slot; }

// Whether a key found this group full.
template <class Slot>
ASRKERN_HOST_DEVICE inline bool hash_left(const Slot* group) {
  return hash_order(group[kHashGroup - 1]) > hash_order(group[kHashGroup - 2]);
}

// The group where the search for a key begins: its upper bits, scaled to the number of groups. Keys are hashes already.
ASRKERN_HOST_DEVICE inline uint64_t hash_start(uint64_t key, uint64_t size) {
#ifdef __CUDA_ARCH__
  return __umul64hi(key, size / kHashGroup) * kHashGroup;
#else
  return uint64_t((unsigned __int128)key * (size / kHashGroup) >> 64) * kHashGroup;
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

// size: a multiple of kHashGroup, not 0. If the slots begin at a cache line, a search costs about one cache miss.
struct HashTable {
  const HashSlot* slots;  // [size]
  uint64_t size;

  // The slot where the search for a key begins.
  ASRKERN_HOST_DEVICE const HashSlot* first(uint64_t key) const { return slots + hash_start(key, size); }

  ASRKERN_HOST_DEVICE bool find(uint64_t key, const HashSlot* slot, uint64_t& payload) const {
    for (uint64_t seen = 0; seen < size; seen += kHashGroup) {
      bool found = false;
      payload = 0;
      for (uint64_t i = 0; i < kHashGroup; ++i) {
        const bool equal = slot[i].key == key;
        payload |= slot[i].payload & -uint64_t(equal);
        found |= equal;
      }
      if (found | !hash_left(slot)) return found;
      slot += kHashGroup;
      if (slot == slots + size) slot = slots;
    }
    return false;
  }
};

// A slot: the lower 48 bits of the key above 16 bits of payload; 0: empty. A missing key is taken for a present one
// with a probability of about 2^-46.
struct SmallHashTable {
  const uint64_t* slots;  // [size], as above
  uint64_t size;

  ASRKERN_HOST_DEVICE static uint64_t check_bits(uint64_t key) {
    const uint64_t low = key << 16;
    return low ? low : 1ull << 16;
  }

  ASRKERN_HOST_DEVICE const uint64_t* first(uint64_t key) const { return slots + hash_start(key, size); }

  ASRKERN_HOST_DEVICE bool find(uint64_t key, const uint64_t* slot, uint64_t& payload) const {
    const uint64_t check = check_bits(key);
    for (uint64_t seen = 0; seen < size; seen += kHashGroup) {
      bool found = false;
      payload = 0;
      for (uint64_t i = 0; i < kHashGroup; ++i) {
        const uint64_t difference = slot[i] ^ check;
        const bool equal = difference < 1ull << 16;
        payload |= difference & -uint64_t(equal);
        found |= equal;
      }
      if (found | !hash_left(slot)) return found;
      slot += kHashGroup;
      if (slot == slots + size) slot = slots;
    }
    return false;
  }
};

}  // namespace asrkern
