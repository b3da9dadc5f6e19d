// Queries of a KenLM trie where it lies in the file, mapped into memory. Whatever the file holds, nothing outside it is
// read, a search ends soon, and scores are those of numbers that a language model can have: pointers are limited as
// they are read, so nothing depends on checks of the whole file, which may change while it is mapped.
//
// The words before a word lead from it into the trie, the last one first (kenlm_trie.h). A file's word ids are in the
// order of their words' hashes, so those in a range of records are spread evenly: a search begins where an even spread
// would have the word.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/lm/kenlm_trie.h"
#include "kernels/lm/ngram.h"
#include "kernels/lm/ngram_builder.h"
#include "kernels/lm/trie_level.h"

namespace asrkern {

// Where an n-gram is: the records of the n-grams that are longer by one word, begin … end − 1 of the next order. Their
// words, which stand before it, are in ascending order.
struct TrieRange {
  uint64_t begin, end;
};

class NGramTrie {
 public:
  // The file of `trie` has to stay. It is asked for no words by their hashes until index_words().
  explicit NGramTrie(const KenlmTrie& trie)
      : order_(trie.order()),
        vocabulary_(trie.vocabulary()),
        ngrams_(trie.ngrams()),
        unigrams_(trie.unigrams()),
        hashes_(trie.hashes()) {
    std::copy(trie.levels().begin(), trie.levels().end(), levels_.begin());
  }

  // Makes what find_word needs, a byte for each word. The words' hashes have to grow; see KenlmTrie::check_words.
  void index_words();

  int32_t order() const { return order_; }
  int32_t vocabulary() const { return int32_t(vocabulary_); }
  uint64_t ngrams() const { return ngrams_; }

  // Requests what find_word reads first, then what it reads next.
  void prefetch_bucket(uint64_t hash) const { prefetch(buckets_.data() + bucket(hash)); }
  void prefetch_word(uint64_t hash) const { prefetch(hashes_ + 8 * uint64_t(buckets_[bucket(hash)])); }

  // The id of the word with this murmur_hash; kUnk if there is none.
  int32_t find_word(uint64_t hash) const {
    uint64_t begin = buckets_[bucket(hash)], end = buckets_[bucket(hash) + 1];
    while (begin < end) {
      const uint64_t middle = begin + (end - begin) / 2, found = trie_load(hashes_ + 8 * middle);
      if (found == hash) return int32_t(middle + 1);
      if (found < hash)
        begin = middle + 1;
      else
        end = middle;
    }
    return kUnk;
  }

  void prefetch_unigram(int32_t word) const { prefetch(unigrams_ + KenlmTrie::kUnigramBytes * uint64_t(word)); }

  // A word's entry, marked as in NGramTables, and where its bigrams are. word: 0 … vocabulary − 1.
  NGramEntry unigram(int32_t word, TrieRange& longer) const {
    const char* const record = unigrams_ + KenlmTrie::kUnigramBytes * uint64_t(word);
    longer = limited(trie_load(record + 8), trie_load(record + KenlmTrie::kUnigramBytes + 8), levels_[0].count);
    NGramEntry entry;
    memcpy(&entry, record, sizeof entry);
    return sane(entry, longer);
  }

  // Requests what find reads first.
  void prefetch_record(int32_t depth, TrieRange range, int32_t word) const {
    const TrieLevel& level = levels_[depth];
    prefetch(level.records + guess(range.begin, range.end, 0, vocabulary_, uint64_t(word)) * level.record_bits / 8);
  }

  // Finds the n-gram that is longer by `word`, which stands before it. range: not empty, of order depth + 2, as unigram
  // or find gave it; it becomes the found one's. False if there is none; then range and entry are as before.
  bool find(int32_t depth, int32_t word, TrieRange& range, NGramEntry& entry) const {
    const TrieLevel& level = levels_[depth];
    uint64_t record;
    if (!search(level, range, uint64_t(word), record)) return false;
    range = level.longest() ? TrieRange{0, 0} : children(level, record, levels_[depth + 1].count);
    entry = sane(level.values(record), range);
    return true;
  }

 private:
  // A search that has taken so many steps by its guesses halves its range from then on.
  static constexpr int kMostGuesses = 6;

  uint64_t bucket(uint64_t hash) const { return hash >> bucket_shift_; }

  // Where among records begin … end − 1, whose words are low … high − 1, an even spread has the word.
  static uint64_t guess(uint64_t begin, uint64_t end, uint64_t low, uint64_t high, uint64_t word) {
    const double part = double(int64_t(word - low)) / double(int64_t(high - low));
    return std::min(begin + uint64_t(int64_t(double(int64_t(end - begin)) * part)), end - 1);
  }

  bool search(const TrieLevel& level, TrieRange range, uint64_t word, uint64_t& record) const {
    if (word >= vocabulary_) return false;  // a state may be of another model
    uint64_t begin = range.begin, end = range.end, low = 0, high = vocabulary_;
    for (int step = 0; begin < end; ++step) {
      record = step < kMostGuesses ? guess(begin, end, low, high, word) : begin + (end - begin) / 2;
      const uint64_t found = level.word(record);
      if (found == word) return true;
      if (found < word)
        begin = record + 1, low = found + 1;
      else
        end = record, high = found;
    }
    return false;
  }

  static TrieRange limited(uint64_t begin, uint64_t end, uint64_t count) {
    end = std::min(end, count);
    return {std::min(begin, end), end};
  }

  static TrieRange children(const TrieLevel& level, uint64_t record, uint64_t next_count) {
    uint64_t begin = level.next(record), end = level.next(record + 1);
    if (level.offsets) {
      const uint64_t upper = upper_bits(level, record);
      const bool grows = upper + 1 < level.offset_count && level.offset(upper + 1) <= record + 1;
      begin |= upper << level.next_bits;
      end |= (grows ? upper_bits(level, record + 1) : upper) << level.next_bits;
    }
    // As in KenlmTrie::next_begin.
    if (record + 1 == level.count) end = next_count;
    return limited(begin, end, next_count);
  }

  // How many offsets, without the 0 that is the first, are at most `record`.
  static uint64_t upper_bits(const TrieLevel& level, uint64_t record) {
    uint64_t begin = 1, end = level.offset_count;
    while (begin < end) {
      const uint64_t middle = begin + (end - begin) / 2;
      if (level.offset(middle) <= record)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin - 1;
  }

  // Numbers that no language model has count as a log-probability of −99, as an ARPA file's −inf, and as no weight.
  static NGramEntry sane(NGramEntry entry, TrieRange longer) {
    const float magnitude = std::fabs(entry.log_prob) <= -kLeastLog10 ? std::fabs(entry.log_prob) : 99.0f;
    return {longer.begin < longer.end ? magnitude : -magnitude, is_backoff(entry.backoff) ? entry.backoff : -0.0f};
  }

  int32_t order_;
  uint64_t vocabulary_, ngrams_;
  const char *unigrams_, *hashes_;
  std::array<TrieLevel, kMaxOrder - 1> levels_{};  // orders 2, 3, …
  std::vector<uint32_t> buckets_;  // for each of a hash's upper bits, how many words have lower ones; and the end
  int bucket_shift_ = 0;
};

}  // namespace asrkern
