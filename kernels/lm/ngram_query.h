// Scores many sentences at once. It requests the memory of their n-grams some words before it reads them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/lm/ngram.h"
#include "kernels/lm/ngram_trie.h"
#include "kernels/lm/tokenizer.h"

namespace asrkern {

struct WordScore {
  float log_prob;   // log10 P(word | words before)
  int32_t matched;  // words of the n-gram whose probability it is
  int32_t word;     // id
};

// Bit for bit the scores of ngram_score, word by word.
class NGramScorer {
 public:
  // bos: sentences begin after <s>; eos: they end with </s>.
  NGramScorer(const NGramTables& tables, const Tokenizer& tokenizer, bool bos, bool eos)
      : tables_(tables), tokenizer_(tokenizer), bos_(bos), eos_(eos) {}

  // Calls take(sentence, scores, count) for each sentence in order.
  template <class Take>
  void operator()(const std::vector<std::string_view>& sentences, Take&& take) {
    if (tables_.trie)
      score_all<true>(sentences, take);
    else
      score_all<false>(sentences, take);
  }

 private:
  template <bool kTrie, class Take>
  void score_all(const std::vector<std::string_view>& sentences, Take& take) {
    constexpr size_t kBlock = 256;  // words; a sentence is never divided
    for (size_t first = 0, last = 0; first < sentences.size(); first = last) {
      count_ = 0;
      ends_.clear();
      for (; last < sentences.size() && count_ < kBlock; ++last) read<kTrie>(sentences[last]);
      if constexpr (kTrie)
        score_in_trie(*tables_.trie);
      else
        score_in_tables();
      for (size_t i = 0, at = 0; i < ends_.size(); at = ends_[i++])
        take(first + i, scores_.data() + at + bos_, ends_[i] - at - bos_);
    }
  }

  static constexpr size_t kAhead = 8;  // words between requesting memory and reading it
  static constexpr size_t kRing = 16;

  struct Source {
    uint64_t hash;    // of a word whose id is not known yet
    int32_t context;  // how many words before it can matter
  };

  // What is known of a word near the one that is scored.
  struct Near {
    std::array<uint64_t, kMaxOrder - 1> keys;  // of the n-grams of orders 2, 3, … that it ends
    std::array<const void*, kMaxOrder - 1> slots;
    std::array<float, kMaxOrder - 1> backoffs;  // as in NGramState, after the word
    int32_t length;
  };

  // How far a word came in a trie.
  struct Walk {
    TrieRange range;  // of the n-grams that are longer than the longest found
    int32_t found;    // n-grams, of orders 1, 2, …
    std::array<NGramEntry, kMaxOrder> entries;
  };

  // word: the id, or −1 if it is not known yet. context: how many words come before it.
  void push(int32_t word, uint64_t hash, int32_t context) {
    scores_[count_].word = word;
    sources_[count_++] = {hash, std::min(context, tables_.order - 1)};
  }

  template <bool kTrie>
  void read(std::string_view sentence) {
    if (const size_t most = count_ + sentence.size() + 2; scores_.size() < most) {
      scores_.resize(most);
      sources_.resize(most);
    }
    int32_t context = 0;
    if (bos_) push(tables_.bos, 0, context++);
    tokenizer_(sentence, [&](std::string_view word) {
      const bool inside = !tokenizer_.characters;
      const char* end = inside ? sentence.data() + sentence.size() : word.data() + word.size();
      const uint64_t hash = murmur_hash(word.data(), word.size(), end);
      if constexpr (kTrie)
        tables_.trie->prefetch_bucket(hash);
      else
        prefetch(tables_.words.first(hash));
      push(-1, hash, context++);
    });
    if (eos_) push(tables_.eos, 0, context);
    ends_.push_back(count_);
  }

  void score_in_tables() {
    for (size_t i = 0; i < count_; ++i)
      if (scores_[i].word < 0) scores_[i].word = ngram_table_word(tables_, sources_[i].hash);
    for (size_t i = 0; i < std::min(count_, kAhead); ++i) request(i);
    for (size_t i = 0; i < count_; ++i) {
      if (i + kAhead < count_) request(i + kAhead);
      const Near& near = ring_[i % kRing];
      score(i, tables_.unigrams[scores_[i].word],
            [&](int32_t n, NGramEntry& entry) { return ngram_find(tables_, near.keys[n], near.slots[n], entry); });
    }
  }

  void request(size_t i) {
    Near& near = ring_[i % kRing];
    uint64_t key = uint64_t(scores_[i].word);
    prefetch(tables_.unigrams + key);
    for (int32_t n = 0; n < sources_[i].context; ++n) {
      near.keys[n] = key = ngram_key(key, scores_[i - n - 1].word);
      near.slots[n] = ngram_prefetch_slot(tables_, key);
    }
  }

  // In a trie the place of a longer n-gram is known only when the shorter one is found. So all words of the block go
  // one order further before any goes the next, and each requests what it will read then.
  void score_in_trie(const NGramTrie& trie) {
    walks_.resize(std::max(walks_.size(), count_));
    for (size_t i = 0; i < count_; ++i)
      if (scores_[i].word < 0) trie.prefetch_word(sources_[i].hash);
    for (size_t i = 0; i < count_; ++i) {
      if (scores_[i].word < 0) scores_[i].word = trie.find_word(sources_[i].hash);
      trie.prefetch_unigram(scores_[i].word);
    }
    going_.clear();
    for (size_t i = 0; i < count_; ++i) {
      Walk& walk = walks_[i];
      walk.entries[0] = trie.unigram(scores_[i].word, walk.range);
      walk.found = 1;
      go_on(trie, i, 0);
    }
    for (int32_t depth = 0; !going_.empty(); ++depth) {
      std::swap(going_, went_);
      going_.clear();
      for (const uint32_t i : went_) {
        Walk& walk = walks_[i];
        if (!trie.find(depth, scores_[i - size_t(depth) - 1].word, walk.range, walk.entries[depth + 1])) continue;
        ++walk.found;
        go_on(trie, i, depth + 1);
      }
    }
    for (size_t i = 0; i < count_; ++i)
      score(i, walks_[i].entries[0], [&walk = walks_[i]](int32_t n, NGramEntry& entry) {
        if (n + 1 >= walk.found) return false;
        entry = walk.entries[n + 1];
        return true;
      });
  }

  // Has the word look for a longer n-gram if there may be one.
  void go_on(const NGramTrie& trie, size_t i, int32_t depth) {
    const TrieRange range = walks_[i].range;
    if (sources_[i].context <= depth || range.begin == range.end) return;
    trie.prefetch_record(depth, range, scores_[i - size_t(depth) - 1].word);
    going_.push_back(uint32_t(i));
  }

  // entry: the word's. find(n, entry) gives the entry of the n-gram of order n + 2 that it ends, or false.
  template <class Find>
  void score(size_t i, NGramEntry entry, Find&& find) {
    const Near& before = ring_[(i - 1) % kRing];
    Near& near = ring_[i % kRing];
    const int32_t context = sources_[i].context ? before.length : 0;
    float log_prob = ngram_log_prob(entry);
    int32_t matched = 1;
    near.backoffs[0] = entry.backoff;
    near.length = tables_.order > 1 && ngram_extends_right(entry.backoff);
    while (matched <= context && ngram_extends_left(entry.log_prob)) {
      if (!find(matched - 1, entry)) break;
      log_prob = ngram_log_prob(entry);
      if (++matched == tables_.order) break;
      near.backoffs[matched - 1] = entry.backoff;
      if (ngram_extends_right(entry.backoff)) near.length = matched;
    }
    for (int32_t n = matched; n <= context; ++n) log_prob += before.backoffs[n - 1];
    scores_[i].log_prob = log_prob;
    scores_[i].matched = matched;
  }

  const NGramTables tables_;  // copies, so that the compiler knows that no write here changes them
  const Tokenizer tokenizer_;
  const bool bos_, eos_;
  size_t count_ = 0;  // words of the block, <s> and </s> included
  std::vector<WordScore> scores_;
  std::vector<Source> sources_;
  std::vector<size_t> ends_;  // of each sentence of the block
  std::array<Near, kRing> ring_;
  std::vector<Walk> walks_;  // of the block, in a trie
  std::vector<uint32_t> going_, went_;
};

}  // namespace asrkern
