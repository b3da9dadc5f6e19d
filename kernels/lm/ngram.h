// A back-off n-gram model as flat arrays, and its query. No allocation: the arrays belong to the caller.
//
// Probabilities and back-off weights are log10, as in ARPA files; ln p = ln 10 · log10 p. Word ids are
// 0 … vocabulary − 1, 0 is <unk>. Keys of n-grams and words, the marks in the signs of values and the states are
// KenLM's (Heafield 2011), so that its probing files can be taken over. An n-gram's key is made from its last word
// backwards: a query extends it by one word of the context at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/common/hash_table.h"
#include "kernels/common/host_device.h"
#include "kernels/common/murmur_hash.h"

namespace asrkern {

constexpr int32_t kMaxOrder = 6;
constexpr int32_t kUnk = 0;

// log_prob: the value is −|log_prob|. The sign bit is a mark: if it is set, no longer n-gram ends with this one.
// backoff: −0.0 marks an n-gram that begins no longer one, and so has no back-off weight.
struct NGramEntry {
  float log_prob;
  float backoff;
};

// A trie of KenLM in place of the tables; see ngram_trie.h.
class NGramTrie;

struct NGramTables {
  const NGramEntry* unigrams;  // [vocabulary]
  HashTable ngrams;            // orders 2 … order; payload: an NGramEntry. Or, if there is a codebook:
  SmallHashTable quantized;    //   payload: code of log_prob + 256 · code of backoff
  const float* codebook;       //   [2, 256]: log_probs, backoffs; null: not quantised
  HashTable words;             // murmur_hash of a word → its id
  const NGramTrie* trie;       // null: none. Else it has what `ngrams` and `words` would, and is asked on the host only
  int32_t order;
  int32_t vocabulary;
  int32_t bos;  // id of <s>
  int32_t eos;  // id of </s>
};

struct NGramState;
// ngram_word and ngram_score of a trie.
int32_t ngram_trie_word(const NGramTrie& trie, uint64_t hash);
float ngram_trie_score(const NGramTrie& trie, int32_t order, const NGramState& in, int32_t word, NGramState& out,
                       int32_t* matched);

// The context of the next word, the most recent word first. It is as short as it can be: words that no n-gram of the
// model reaches are dropped, so hypotheses that score alike from here on have equal states. Words beyond `length` are
// 0.
struct NGramState {
  int32_t words[kMaxOrder - 1];
  int32_t length;
  float backoffs[kMaxOrder - 1];  // of the last 1, 2, … words; they follow from `words`
};

ASRKERN_HOST_DEVICE inline uint32_t ngram_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Whether an n-gram with this back-off weight begins a longer one, so that it is kept as context.
ASRKERN_HOST_DEVICE inline bool ngram_extends_right(float backoff) { return ngram_bits(backoff) != 0x80000000u; }

// Whether a longer n-gram ends with the one of this log_prob.
ASRKERN_HOST_DEVICE inline bool ngram_extends_left(float log_prob) { return ngram_bits(log_prob) >> 31 == 0; }

ASRKERN_HOST_DEVICE inline float ngram_log_prob(NGramEntry entry) {
  const uint32_t bits = ngram_bits(entry.log_prob) | 0x80000000u;
  float log_prob;
  memcpy(&log_prob, &bits, sizeof log_prob);
  return log_prob;
}

// The state without context, as in the middle of a text.
ASRKERN_HOST_DEVICE inline NGramState ngram_null_state() { return NGramState{}; }

// The state after <s>.
ASRKERN_HOST_DEVICE inline NGramState ngram_bos_state(const NGramTables& tables) {
  NGramState state{};
  const float backoff = tables.unigrams[tables.bos].backoff;
  if (tables.order > 1 && ngram_extends_right(backoff)) {
    state.words[0] = tables.bos;
    state.backoffs[0] = backoff;
    state.length = 1;
  }
  return state;
}

ASRKERN_HOST_DEVICE inline bool ngram_equal(const NGramState& a, const NGramState& b) {
  int32_t difference = a.length ^ b.length;
  for (int32_t i = 0; i < kMaxOrder - 1; ++i) difference |= a.words[i] ^ b.words[i];
  return difference == 0;
}

// The key of an n-gram with one more word at its beginning. The key of a unigram is its word id.
ASRKERN_HOST_DEVICE inline uint64_t ngram_key(uint64_t key, int32_t word) {
  return (key * 8978948897894561157ull) ^ ((1 + uint64_t(word)) * 17894857484156487943ull);
}

// A hash that is equal for equal states.
ASRKERN_HOST_DEVICE inline uint64_t ngram_state_hash(const NGramState& state) {
  uint64_t key = uint64_t(state.length);
  for (int32_t i = 0; i < state.length; ++i) key = ngram_key(key, state.words[i]);
  return key;
}

// The id of the word with this murmur_hash; kUnk if the model does not know it. The tables have the words, not a trie.
inline int32_t ngram_table_word(const NGramTables& tables, uint64_t hash) {
  uint64_t id;
  return tables.words.find(hash, tables.words.first(hash), id) && id < uint64_t(tables.vocabulary) ? int32_t(id) : kUnk;
}

// The same of any model.
inline int32_t ngram_word(const NGramTables& tables, uint64_t hash) {
  return tables.trie ? ngram_trie_word(*tables.trie, hash) : ngram_table_word(tables, hash);
}

// The id of a word in UTF-8.
inline int32_t ngram_word(const NGramTables& tables, const char* word, size_t bytes) {
  return ngram_word(tables, murmur_hash(word, bytes));
}

// Where the search for the n-gram with this key begins.
ASRKERN_HOST_DEVICE inline const void* ngram_slot(const NGramTables& tables, uint64_t key) {
  if (tables.codebook) return tables.quantized.first(key);
  return tables.ngrams.first(key);
}

// The same; also starts the loads that ngram_find would wait for.
ASRKERN_HOST_DEVICE inline const void* ngram_prefetch_slot(const NGramTables& tables, uint64_t key) {
  const void* slot = ngram_slot(tables, key);
  prefetch(slot);
  return slot;
}

// Finds the entry of the n-gram with this key, from the slot that ngram_slot gave. False if there is none.
ASRKERN_HOST_DEVICE inline bool ngram_find(const NGramTables& tables, uint64_t key, const void* slot,
                                           NGramEntry& entry) {
  uint64_t payload;
  if (tables.codebook) {
    if (!tables.quantized.find(key, static_cast<const uint64_t*>(slot), payload)) return false;
    entry = {tables.codebook[payload & 255], tables.codebook[256 + (payload >> 8)]};
  } else {
    if (!tables.ngrams.find(key, static_cast<const HashSlot*>(slot), payload)) return false;
    memcpy(&entry, &payload, sizeof entry);
  }
  return true;
}

// Starts the loads that ngram_score(tables, state, word, …) would wait for.
ASRKERN_HOST_DEVICE inline void ngram_prefetch(const NGramTables& tables, const NGramState& state, int32_t word) {
  if (tables.trie) return;  // its words are searched for, not at a place that is known before
  prefetch(tables.unigrams + word);
  uint64_t key = uint64_t(word);
  for (int32_t i = 0; i < state.length; ++i) {
    key = ngram_key(key, state.words[i]);
    ngram_prefetch_slot(tables, key);
  }
}

// ngram_score by entries: `entry` is the word's, and search.longer(n, next, entry) finds that of the n-gram of order n
// + 2 that begins one word, `next`, before the one found last; false if there is none.
template <class Search>
ASRKERN_HOST_DEVICE inline float ngram_walk(int32_t order, NGramEntry entry, Search search, const NGramState& in,
                                            int32_t word, NGramState& out, int32_t* matched) {
  float log_prob = ngram_log_prob(entry);
  int32_t length = 1, kept = 0;
  if (order > 1) {
    out.words[0] = word;
    out.backoffs[0] = entry.backoff;
    kept = ngram_extends_right(entry.backoff);
    while (length <= in.length && ngram_extends_left(entry.log_prob)) {
      const int32_t next = in.words[length - 1];
      if (!search.longer(length - 1, next, entry)) break;
      log_prob = ngram_log_prob(entry);
      if (++length == order) break;
      out.words[length - 1] = next;
      out.backoffs[length - 1] = entry.backoff;
      if (ngram_extends_right(entry.backoff)) kept = length;
    }
    for (int32_t i = length - 1; i < in.length; ++i) log_prob += in.backoffs[i];
  }
  out.length = kept;
  for (int32_t i = 0; i < kMaxOrder - 1; ++i)
    if (i >= kept) out.words[i] = 0, out.backoffs[i] = 0;
  if (matched) *matched = length;
  return log_prob;
}

// Finds n-grams in the tables. key: of the one found last.
struct NGramTableSearch {
  const NGramTables& tables;
  uint64_t key;

  ASRKERN_HOST_DEVICE bool longer(int32_t, int32_t next, NGramEntry& entry) {
    key = ngram_key(key, next);
    return ngram_find(tables, key, ngram_slot(tables, key), entry);
  }
};

// log10 P(word | in). `out` becomes the state after the word, and must be another object than `in`. word: 0 …
// vocabulary − 1. matched: null, or set to the length of the n-gram whose probability it is (1: the word alone).
ASRKERN_HOST_DEVICE inline float ngram_score(const NGramTables& tables, const NGramState& in, int32_t word,
                                             NGramState& out, int32_t* matched = nullptr) {
#ifndef __CUDA_ARCH__
  if (tables.trie) [[unlikely]]
    return ngram_trie_score(*tables.trie, tables.order, in, word, out, matched);
#endif
  const NGramTableSearch search{tables, uint64_t(word)};
  return ngram_walk(tables.order, tables.unigrams[word], search, in, word, out, matched);
}

}  // namespace asrkern
