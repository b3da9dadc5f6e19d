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

float ngram_trie_score(const NGramTrie& trie, int32_t order, const NGramState& in, int32_t word, NGramState& out,
                       int32_t* matched) {
  TrieRange range;
  NGramEntry entry = trie.unigram(word, range);
  float log_prob = ngram_log_prob(entry);
  out.words[0] = word;
  out.backoffs[0] = entry.backoff;
  int32_t length = 1, kept = ngram_extends_right(entry.backoff);
  while (length <= in.length && ngram_extends_left(entry.log_prob)) {
    const int32_t next = in.words[length - 1];
    if (!trie.find(length - 1, next, range, entry)) break;
    log_prob = ngram_log_prob(entry);
    if (++length == order) break;
    out.words[length - 1] = next;
    out.backoffs[length - 1] = entry.backoff;
    if (ngram_extends_right(entry.backoff)) kept = length;
  }
  for (int32_t i = length - 1; i < in.length; ++i) log_prob += in.backoffs[i];
  out.length = kept;
  for (int32_t i = kept; i < kMaxOrder - 1; ++i) out.words[i] = 0, out.backoffs[i] = 0;
  if (matched) *matched = length;
  return log_prob;
}

}  // namespace asrkern
