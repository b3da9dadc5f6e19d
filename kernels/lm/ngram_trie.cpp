#include "kernels/lm/ngram_trie.h"

#include <bit>

namespace asrkern {

void NGramTrie::index_words() {
  const uint64_t words = vocabulary_ - 1;
  const int bits = std::max<int>(1, std::bit_width(words) - 2);
  bucket_shift_ = 64 - bits;
  buckets_.assign((size_t(1) << bits) + 1, uint32_t(words));
  uint64_t filled = 0;
  for (uint64_t word = 0; word < words; ++word)
    while (filled <= bucket(trie_load(hashes_ + 8 * word))) buckets_[filled++] = uint32_t(word);
}

int32_t ngram_trie_word(const NGramTrie& trie, uint64_t hash) { return trie.find_word(hash); }

namespace {

struct TrieSearch {
  const NGramTrie& trie;
  TrieRange range;  // of the n-grams that are longer than the one found last

  bool longer(int32_t depth, int32_t next, NGramEntry& entry) { return trie.find(depth, next, range, entry); }
};

}  // namespace

float ngram_trie_score(const NGramTrie& trie, int32_t order, const NGramState& in, int32_t word, NGramState& out,
                       int32_t* matched) {
  TrieSearch search{trie, {}};
  const NGramEntry entry = trie.unigram(word, search.range);
  return ngram_walk(order, entry, search, in, word, out, matched);
}

}  // namespace asrkern
