// Hash tables that grow; what kernels/common/hash_table.h reads.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/common/hash_table.h"

namespace asrkern {

// Of finished tables: with fewer slots a lookup's loop ends less predictably, which costs more than the memory.
constexpr uint64_t finished_size(uint64_t keys) { return 2 * keys + 1; }

class HashBuilder {
 public:
  uint64_t count() const { return count_; }

  // The payload of a key, or null. Valid until the next insert.
  uint64_t* find(uint64_t key) {
    HashSlot& slot = at(slots_.data(), slots_.size(), key);
    return slot.key ? &slot.payload : nullptr;
  }

  // The payload of a key, set to `payload` if it was missing, and whether it was. Valid until the next insert.
  std::pair<uint64_t*, bool> insert(uint64_t key, uint64_t payload) {
    if (3 * (count_ + 1) > 2 * slots_.size()) resize(2 * slots_.size());
    HashSlot& slot = at(slots_.data(), slots_.size(), key);
    const bool missing = slot.key == 0;
    if (missing) {
      slot = {key, payload};
      ++count_;
    }
    return {&slot.payload, missing};
  }

  // Slots of the finished table.
  uint64_t size() const { return finished_size(count_); }

  // The finished table, into size() slots that are zero.
  void write(HashSlot* slots) const {
    for (const HashSlot& slot : slots_)
      if (slot.key) at(slots, size(), slot.key) = slot;
  }

 private:
  // The slot of a key, or the empty one where it belongs: there is always one.
  static HashSlot& at(HashSlot* slots, uint64_t size, uint64_t key) {
    uint64_t at = hash_start(key, size);
    while (slots[at].key && slots[at].key != key)
      if (++at == size) at = 0;
    return slots[at];
  }

  void resize(uint64_t size) {
    std::vector<HashSlot> slots(size);
    for (const HashSlot& slot : slots_)
      if (slot.key) at(slots.data(), size, slot.key) = slot;
    slots_ = std::move(slots);
  }

  std::vector<HashSlot> slots_ = std::vector<HashSlot>(64);
  uint64_t count_ = 0;
};

// The slots of a SmallHashTable of `count` distinct keys, into finished_size(count) slots that are zero.
inline void write_small_hash_table(const uint64_t* keys, const uint16_t* codes, uint64_t count, uint64_t* slots) {
  const uint64_t size = finished_size(count);
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t at = hash_start(keys[i], size);
    while (slots[at])
      if (++at == size) at = 0;
    slots[at] = SmallHashTable::check_bits(keys[i]) | codes[i];
  }
}

}  // namespace asrkern
