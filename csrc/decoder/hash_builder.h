// Hash tables that grow; what kernels/common/hash_table.h reads.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/common/hash_table.h"

namespace asrkern {

class HashBuilder {
 public:
  uint64_t count() const { return count_; }

  // The payload of a key, or null. Valid until the next insert.
  uint64_t* find(uint64_t key) {
    HashSlot& slot = at(slots_, key);
    return slot.key ? &slot.payload : nullptr;
  }

  // The payload of a key, set to `payload` if it was missing, and whether it was. Valid until the next insert.
  std::pair<uint64_t*, bool> insert(uint64_t key, uint64_t payload) {
    if (3 * (count_ + 1) > 2 * slots_.size()) resize(2 * slots_.size());
    HashSlot& slot = at(slots_, key);
    const bool missing = slot.key == 0;
    if (missing) {
      slot = {key + (key == 0), payload};
      ++count_;
    }
    return {&slot.payload, missing};
  }

  // The table at its final size, half as many slots again as keys; none if there are no keys. The builder is empty
  // afterwards.
  std::vector<HashSlot> take() {
    resize(count_ ? count_ + count_ / 2 + 1 : 0);
    count_ = 0;
    return std::exchange(slots_, std::vector<HashSlot>(INITIAL));
  }

 private:
  static constexpr uint64_t INITIAL = 64;

  // The slot of a key, or the empty one where it belongs: there is always one.
  static HashSlot& at(std::vector<HashSlot>& slots, uint64_t key) {
    key += key == 0;
    uint64_t at = hash_start(hash_mix(key), slots.size());
    while (slots[at].key && slots[at].key != key)
      if (++at == slots.size()) at = 0;
    return slots[at];
  }

  void resize(uint64_t size) {
    std::vector<HashSlot> slots(size);
    for (const HashSlot& slot : slots_)
      if (slot.key) at(slots, slot.key) = slot;
    slots_ = std::move(slots);
  }

  std::vector<HashSlot> slots_ = std::vector<HashSlot>(INITIAL);
  uint64_t count_ = 0;
};

// The slots of a SmallHashTable of the same keys: [size], codes below 2^16.
inline std::vector<uint64_t> small_hash_table(const uint64_t* keys, const uint16_t* codes, uint64_t count) {
  std::vector<uint64_t> slots(count ? count + count / 2 + 1 : 0);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t mixed = hash_mix(keys[i]);
    uint64_t at = hash_start(mixed, slots.size());
    while (slots[at])
      if (++at == slots.size()) at = 0;
    slots[at] = SmallHashTable::check_bits(mixed) | codes[i];
  }
  return slots;
}

}  // namespace asrkern
