// KenLM's binary files of type trie (Heafield 2011): plain, quantised, with compressed pointers, or both.
//
// The words of an n-gram stand in the trie from the last to the first, so a node's key is one more step of the key of
// its parent (ngram_key), and the parent is the n-gram without its first word. Every level is one array of records of
// equal length (trie_level.h), in the order in which a walk through the trie meets them: a word's id, the values
// or their codes, and where the n-grams that are longer by one word begin. The next record says where those end.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/lm/ngram.h"
#include "kernels/lm/text_error.h"
#include "kernels/lm/trie_level.h"

namespace asrkern {

class KenlmTrie {
 public:
  // file: from its vocabulary on, which begins at a multiple of 8 bytes. shape: whether values are quantised, whether
  // pointers are compressed, and how many n-grams of each order there are, 2 … kMaxOrder of them. Throws TextError if
  // the parts do not fit into the file.
  KenlmTrie(std::string_view file, std::span<const int64_t> shape);

  int32_t order() const { return int32_t(counts_.size()); }

  // How many words there are, <unk>, which is word 0, included.
  uint32_t vocabulary() const { return vocabulary_; }

  // murmur_hash of word 1 … vocabulary() − 1.
  uint64_t word_hash(uint32_t word) const { return trie_load(hashes_ + 8 * uint64_t(word - 1)); }

  // The same, [vocabulary() − 1] of 8 bytes.
  const char* hashes() const { return hashes_; }

  // Throws TextError unless the words' hashes grow.
  void check_words() const;

  // The unigrams' values, and where their n-grams begin: [vocabulary() + 1] records of kUnigramBytes.
  static constexpr uint64_t kUnigramBytes = 16;
  const char* unigrams() const { return unigrams_; }

  // The n-grams of orders 2, 3, …
  const std::vector<TrieLevel>& levels() const { return levels_; }

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
  struct Cursor {
    uint64_t at = 0;     // the next record
    uint64_t upper = 0;  // upper bits of the pointer of the record after it
  };

  uint64_t unigram_next(uint64_t word) const { return trie_load(unigrams_ + kUnigramBytes * word + 8); }

  // Values of an ARPA file's −inf are −99, as elsewhere.
  static NGramEntry marked(NGramEntry entry, bool extends_left) {
    const float magnitude = __builtin_isinf(entry.log_prob) ? 99.0f : __builtin_fabsf(entry.log_prob);
    return {extends_left ? magnitude : -magnitude, entry.backoff};
  }

  // Where the children of the record after this one begin. cursor: of this level, at this record.
  static uint64_t next_begin(const TrieLevel& level, Cursor& cursor, uint64_t next_count) {
    const uint64_t after = cursor.at + 1;
    // The last record's children are all that is left. KenLM before June 2014 wrote the end of compressed pointers
    // wrong.
    if (after == level.count) return next_count;
    const uint64_t lower = level.next(after);
    if (!level.offsets) return lower;
    while (cursor.upper + 1 < level.offset_count && level.offset(cursor.upper + 1) <= after) ++cursor.upper;
    return cursor.upper << level.next_bits | lower;
  }

  template <class Take>
  void children(size_t depth, uint64_t end, uint64_t key, int32_t* words, Cursor* cursors, Take& take) const {
    const TrieLevel& level = levels_[depth];
    Cursor& cursor = cursors[depth];
    int64_t before = -1;
    for (; cursor.at < end; ++cursor.at) {
      const uint64_t word = level.word(cursor.at);
      if (int64_t(word) <= before || word >= vocabulary_) fail_word(int32_t(depth + 2), before, word);
      before = int64_t(word);
      words[depth + 1] = int32_t(word);
      const uint64_t longer = ngram_key(key, int32_t(word));
      const NGramEntry entry = level.values(cursor.at);
      if (level.longest()) {
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
  std::vector<uint64_t> counts_;
  uint32_t vocabulary_;
  uint64_t ngrams_ = 0;
  uint64_t bytes_ = 0;
  const char* hashes_;
  const char* unigrams_;
  std::vector<TrieLevel> levels_;  // orders 2, 3, …
};

}  // namespace asrkern
