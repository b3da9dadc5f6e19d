// Hash tables that grow, in the layouts that kernels/common/hash_table.h reads.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/common/hash_table.h"
#include "kernels/lm/text_error.h"

namespace asrkern {

// The slots of a finished table. With fewer slots more groups would be full and more searches would go on behind them,
// which costs more than the memory. Groups come in pairs, so that tables of both layouts end at a cache line's
// boundary: in a file the next table begins there.
constexpr uint64_t finished_size(uint64_t keys) { return (keys / 4 + 1) * 2 * kHashGroup; }

// The most slots between where a key's search begins and where the key is. No key of 10^12 hashes is that far away. In
// a damaged or forged file keys can be, and building would take time that grows with the square of their number.
constexpr uint64_t kMaxDistance = 1024;

[[noreturn]] inline void fail_crowded() {
  throw TextError("expected words and n-grams whose hashes are scattered, received many with hashes close together");
}

// Fills a finished table. Its slots are zero before.
template <class Slot>
class HashWriter {
 public:
  HashWriter(Slot* slots, uint64_t size) : slots_(slots), size_(size), left_(size / kHashGroup) {}

  // The key is not in the table yet.
  void add(uint64_t key, Slot slot) {
    uint64_t at = hash_start(key, size_);
    for (uint64_t distance = 0; hash_order(slots_[at]); ++distance) {
      if (distance == kMaxDistance) fail_crowded();
      if (++at % kHashGroup == 0) left_[at / kHashGroup - 1] = true;
      if (at == size_) at = 0;
    }
    slots_[at] = slot;
  }

  void finish() {
    for (uint64_t group = 0; group < left_.size(); ++group) {
      Slot* const last = slots_ + (group + 1) * kHashGroup - 1;
      if (hash_order(*last) && hash_left(last + 1 - kHashGroup) != left_[group]) std::swap(last[-1], last[0]);
    }
  }

 private:
  Slot* const slots_;
  const uint64_t size_;
  std::vector<bool> left_;  // of each group: whether a key found it full
};

// Adds keys to a HashWriter some keys later, when the memory that it asked for at once is there.
template <class Slot>
class HashQueue {
 public:
  // slots, size: as of the writer.
  HashQueue(Slot* slots, uint64_t size) : writer_(slots, size), slots_(slots), size_(size) {}

  // The key is not in the table yet.
  void add(uint64_t key, Slot slot) {
    const uint64_t at = count_++ % kAhead;
    if (count_ > kAhead) writer_.add(waiting_[at].key, waiting_[at].slot);
    waiting_[at] = {key, slot};
    prefetch(slots_ + hash_start(key, size_));
  }

  void finish() {
    for (uint64_t i = count_ > kAhead ? count_ - kAhead : 0; i < count_; ++i)
      writer_.add(waiting_[i % kAhead].key, waiting_[i % kAhead].slot);
    writer_.finish();
  }

 private:
  static constexpr uint64_t kAhead = 32;
  struct Waiting {
    uint64_t key;
    Slot slot;
  };

  HashWriter<Slot> writer_;
  Slot* const slots_;
  const uint64_t size_;
  uint64_t count_ = 0;
  Waiting waiting_[kAhead];
};

class HashBuilder {
 public:
  uint64_t count() const { return count_; }

  // The payload of a key, or null. The pointer is valid until the next insert.
  uint64_t* find(uint64_t key) {
    HashSlot* const slot = at(key);
    return slot && slot->key ? &slot->payload : nullptr;
  }

  // The payload of a key, which becomes `payload` if the key is new, and whether it is. Valid until the next insert.
  std::pair<uint64_t*, bool> insert(uint64_t key, uint64_t payload) {
    if (3 * (count_ + 1) > 2 * slots_.size()) resize(2 * slots_.size());
    HashSlot* slot = at(key);
    if (!slot) {
      scatter();
      if (!(slot = at(key))) fail_crowded();
    }
    const bool missing = slot->key == 0;
    if (missing) {
      *slot = {key, payload};
      ++count_;
    }
    return {&slot->payload, missing};
  }

  // How many slots the finished table has.
  uint64_t size() const { return finished_size(count_); }

  // Writes the finished table into size() slots that are zero.
  void write(HashSlot* slots) const {
    HashWriter<HashSlot> writer(slots, size());
    for (const HashSlot& slot : slots_)
      if (slot.key) writer.add(slot.key, slot);
    writer.finish();
  }

 private:
  // The slot of a key, or the empty slot where it belongs; null if there are too many others before it.
  HashSlot* at(uint64_t key) {
    const uint64_t size = slots_.size();
    uint64_t at = hash_start(key * scatter_, size);
    for (uint64_t distance = 0; slots_[at].key && slots_[at].key != key; ++distance) {
      if (distance == kMaxDistance) return nullptr;
      if (++at == size) at = 0;
    }
    return &slots_[at];
  }

  void resize(uint64_t size) {
    const std::vector<HashSlot> slots = std::exchange(slots_, std::vector<HashSlot>(size));
    for (const HashSlot& slot : slots) {
      if (!slot.key) continue;
      HashSlot* place = at(slot.key);
      if (!place) fail_crowded();
      *place = slot;
    }
  }

  // Keys that come in ascending order, as words do in the order of their hashes, crowd at the beginning until the last
  // is there. From then on they are multiplied by an odd number. The finished table is as it would be without.
  void scatter() {
    if (scatter_ != 1) fail_crowded();
    scatter_ = 0x9e3779b97f4a7c15;
    resize(slots_.size());
  }

  static constexpr size_t kFirstSize = 64;

  std::vector<HashSlot> slots_ = std::vector<HashSlot>(kFirstSize);
  uint64_t count_ = 0;
  uint64_t scatter_ = 1;
};

// Writes the slots of a SmallHashTable of `count` distinct keys, into finished_size(count) slots that are zero.
inline void write_small_hash_table(const uint64_t* keys, const uint16_t* codes, uint64_t count, uint64_t* slots) {
  HashWriter<uint64_t> writer(slots, finished_size(count));
  for (uint64_t i = 0; i < count; ++i) writer.add(keys[i], SmallHashTable::check_bits(keys[i]) | codes[i]);
  writer.finish();
}

}  // namespace asrkern
