// KenLM's binary files of type trie (Heafield 2011): plain, quantised, with compressed pointers, or both.
//
// The words of an n-gram stand in the trie from the last to the first, so a node's key is one more step of the key of
// its parent (ngram_key), and the parent is the n-gram without its first word. Every level is one array of records of
// equal length, packed bit after bit, in the order in which a walk through the trie meets them: a word's id, the values
// or their codes, and where the n-grams that are longer by one word begin. The next record says where those end.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "kernels/lm/ngram.h"
#include "kernels/lm/text_error.h"

namespace asrkern {

class KenlmTrie {
 public:
  // file: from its vocabulary on, which begins at a multiple of 8 bytes. counts: of the n-grams of each order, 2 …
  // kMaxOrder of them. Throws TextError if the parts do not fit into the file.
  KenlmTrie(std::string_view file, std::vector<uint64_t> counts, bool quantized, bool compressed_pointers);

  // How many words there are, <unk>, which is word 0, included.
  uint32_t vocabulary() const { return vocabulary_; }

  // murmur_hash of word 1 … vocabulary() − 1.
  uint64_t word_hash(uint32_t word) const { return load(hashes_ + 8 * uint64_t(word - 1)); }

  // How many n-grams of orders 2 and up there are.
  uint64_t ngrams() const { return ngrams_; }

  // Where the parts end: there the words begin, if the file has them.
  uint64_t bytes() const { return bytes_; }

  // Calls take(order, words, key, entry) for each n-gram in the order of the trie; entry is an NGramEntry, words are
  // the ids from the last to the first. Throws TextError if pointers or ids are impossible, before it could follow
  // them.
  template <class Take>
  void read(Take&& take) const {
    int32_t words[kMaxOrder];
    Cursor cursors[kMaxOrder - 1];
    for (uint64_t word = 0; word < counts_[0]; ++word) {
      const uint64_t begin = unigram_next(word), end = unigram_next(word + 1);
      check_range(2, cursors[0].at, begin, end, counts_[1]);
      // Where a file has <unk> and <UNK>, a record too many is there, which no word has.
      if (word >= vocabulary_) {
        check_unused(begin, end);
        continue;
      }
      words[0] = int32_t(word);
      NGramEntry entry;
      memcpy(&entry, unigrams_ + kUnigramBytes * word, sizeof entry);
      take(1, words, word, marked(entry, begin < end));
      children(0, end, word, words, cursors, take);
    }
    for (size_t n = 1; n < counts_.size(); ++n) check_complete(int32_t(n + 1), cursors[n - 1].at, counts_[n]);
  }

 private:
  static constexpr uint64_t kUnigramBytes = 16;

  // Where the records of an order are and how they are divided.
  struct Level {
    const char* records;
    uint64_t count;
    int word_bits, log_prob_bits, backoff_bits, next_bits;  // of a record's parts, in another order
    int record_bits;
    const char* offsets;    // the records at which the pointers' upper bits grow by 1; null: pointers are whole
    uint64_t offset_count;  // of offsets, 0 included
    const char* log_probs;  // the values of codes; null: values are not coded
    const char* backoffs;
  };

  struct Cursor {
    uint64_t at = 0;     // the next record
    uint64_t upper = 0;  // upper bits of the pointer of the record after it
  };

  static uint64_t load(const char* bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
  }
  static float load_float(const char* bytes) {
    float value;
    memcpy(&value, bytes, sizeof value);
    return value;
  }
  // Up to 57 bits that begin at a bit.
  static uint64_t bits(const char* base, uint64_t at, int count) {
    return load(base + at / 8) >> at % 8 & ((uint64_t(1) << count) - 1);
  }
  uint64_t unigram_next(uint64_t word) const { return load(unigrams_ + kUnigramBytes * word + 8); }

  // Values of an ARPA file's −inf are −99, as elsewhere.
  static NGramEntry marked(NGramEntry entry, bool extends_left) {
    const float magnitude = __builtin_isinf(entry.log_prob) ? 99.0f : __builtin_fabsf(entry.log_prob);
    return {extends_left ? magnitude : -magnitude, entry.backoff};
  }

  static NGramEntry values(const Level& level, uint64_t at) {
    const bool longest = level.next_bits < 0;
    if (!level.log_probs) {
      const uint32_t packed[2] = {uint32_t(bits(level.records, at, 31)),
                                  longest ? 0x80000000u : uint32_t(bits(level.records, at + 31, 32))};
      NGramEntry entry;
      memcpy(&entry, packed, sizeof entry);
      return entry;
    }
    const uint64_t log_prob = bits(level.records, at + uint64_t(level.backoff_bits), level.log_prob_bits);
    const uint64_t backoff = bits(level.records, at, level.backoff_bits);
    return {load_float(level.log_probs + 4 * log_prob), longest ? -0.0f : load_float(level.backoffs + 4 * backoff)};
  }

  // Where the children of the record after this one begin. cursor: of this level, at this record.
  static uint64_t next_begin(const Level& level, Cursor& cursor, uint64_t next_count) {
    const uint64_t after = cursor.at + 1;
    // The last record's children are all that is left. KenLM before June 2014 wrote the end of compressed pointers
    // wrong.
    if (after == level.count) return next_count;
    const uint64_t lower =
        bits(level.records, after * uint64_t(level.record_bits) + uint64_t(level.record_bits - level.next_bits),
             level.next_bits);
    if (!level.offsets) return lower;
    while (cursor.upper + 1 < level.offset_count && load(level.offsets + 8 * (cursor.upper + 1)) <= after)
      ++cursor.upper;
    return cursor.upper << level.next_bits | lower;
  }

  template <class Take>
  void children(size_t depth, uint64_t end, uint64_t key, int32_t* words, Cursor* cursors, Take& take) const {
    const Level& level = levels_[depth];
    Cursor& cursor = cursors[depth];
    const bool longest = depth + 1 == levels_.size();
    int64_t before = -1;
    for (; cursor.at < end; ++cursor.at) {
      const uint64_t at = cursor.at * uint64_t(level.record_bits);
      const uint64_t word = bits(level.records, at, level.word_bits);
      if (int64_t(word) <= before || word >= vocabulary_) fail_word(int32_t(depth + 2), before, word);
      before = int64_t(word);
      words[depth + 1] = int32_t(word);
      const uint64_t longer = ngram_key(key, int32_t(word));
      const NGramEntry entry = values(level, at + uint64_t(level.word_bits));
      if (longest) {
        take(int32_t(depth + 2), words, longer, marked(entry, false));
        continue;
      }
      const uint64_t next = cursors[depth + 1].at, next_end = next_begin(level, cursor, levels_[depth + 1].count);
      check_range(int32_t(depth + 3), next, next, next_end, levels_[depth + 1].count);
      take(int32_t(depth + 2), words, longer, marked(entry, next < next_end));
      children(depth + 1, next_end, longer, words, cursors, take);
    }
  }

  // Throws unless records begin … end − 1 of an order of `count` follow those before `at`.
  static void check_range(int32_t order, uint64_t at, uint64_t begin, uint64_t end, uint64_t count) {
    if (begin != at || end < begin || end > count) fail_range(order, at, begin, end, count);
  }
  [[noreturn]] static void fail_range(int32_t order, uint64_t at, uint64_t begin, uint64_t end, uint64_t count);
  [[noreturn]] void fail_word(int32_t order, int64_t before, uint64_t word) const;
  void check_unused(uint64_t begin, uint64_t end) const;
  static void check_complete(int32_t order, uint64_t read, uint64_t count);

  const char* part(uint64_t bytes, const char* name);

  std::string_view file_;
  const std::vector<uint64_t> counts_;
  uint32_t vocabulary_;
  uint64_t ngrams_ = 0;
  uint64_t bytes_ = 0;
  const char* hashes_;
  const char* unigrams_;
  std::vector<Level> levels_;  // orders 2, 3, …
};

}  // namespace asrkern
