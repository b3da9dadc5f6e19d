// The n-grams of one order in a KenLM file of type trie: records of equal length, packed bit after bit. A record has a
// word's id, the values or their codes, and where the n-grams that are longer by one word begin (see kenlm_trie.h).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/lm/ngram.h"

namespace asrkern {

inline uint64_t trie_load(const char* bytes) {
  uint64_t value;
  memcpy(&value, bytes, sizeof value);
  return value;
}

// Up to 57 bits that begin at a bit.
inline uint64_t trie_bits(const char* base, uint64_t at, int count) {
  return trie_load(base + at / 8) >> at % 8 & ((uint64_t(1) << count) - 1);
}

// Where the records of an order are and how they are divided. Behind the last record is one more, whose pointer ends
// the last one's n-grams, and room to read 8 bytes anywhere.
struct TrieLevel {
  const char* records;
  uint64_t count;
  int word_bits, log_prob_bits, backoff_bits, next_bits;  // of a record's parts, in another order
  int record_bits;
  const char* offsets;    // the records at which the pointers' upper bits grow by 1; null: pointers are whole
  uint64_t offset_count;  // of offsets, 0 included
  const char* log_probs;  // the values of codes; null: values are not coded
  const char* backoffs;

  // Of the longest n-grams: nothing follows them.
  bool longest() const { return next_bits < 0; }

  uint64_t word(uint64_t record) const { return trie_bits(records, record * uint64_t(record_bits), word_bits); }

  NGramEntry values(uint64_t record) const {
    const uint64_t at = record * uint64_t(record_bits) + uint64_t(word_bits);
    if (!log_probs) {
      const uint32_t packed[2] = {uint32_t(trie_bits(records, at, 31)),
                                  longest() ? 0x80000000u : uint32_t(trie_bits(records, at + 31, 32))};
      NGramEntry entry;
      memcpy(&entry, packed, sizeof entry);
      return entry;
    }
    NGramEntry entry{0, -0.0f};
    memcpy(&entry.log_prob, log_probs + 4 * trie_bits(records, at + uint64_t(backoff_bits), log_prob_bits), 4);
    if (!longest()) memcpy(&entry.backoff, backoffs + 4 * trie_bits(records, at, backoff_bits), 4);
    return entry;
  }

  // The lower bits of a record's pointer; all of them if there are no offsets.
  uint64_t next(uint64_t record) const {
    return trie_bits(records, (record + 1) * uint64_t(record_bits) - uint64_t(next_bits), next_bits);
  }

  uint64_t offset(uint64_t i) const { return trie_load(offsets + 8 * i); }
};

}  // namespace asrkern
