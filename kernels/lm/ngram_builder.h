// Makes the tables of kernels/lm/ngram.h from the n-grams of a back-off model.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/lm/hash_builder.h"
#include "kernels/lm/ngram.h"

namespace asrkern {

// Bounds of the numbers in models from outside. Larger ones are damage, and would add up to infinity. A back-off weight
// may be positive: more probability can be left for other words than they have without the context.
constexpr float kLeastLog10 = -1e6f, kGreatestBackoff = 99;
inline bool is_log_prob(float value) { return value >= kLeastLog10 && value <= 0; }
inline bool is_backoff(float value) { return value >= kLeastLog10 && value <= kGreatestBackoff; }

class NGramBuilder {
 public:
  // <unk> is there from the beginning, with the log-probability that KenLM gives it in models without it.
  NGramBuilder();

  int32_t vocabulary() const { return int32_t(unigrams_.size()); }

  // The id of a word; −1 if there is none. <UNK> is <unk>.
  int32_t find(std::string_view word);

  // False if the word is there already. It keeps its values; only <unk> takes the new ones, as in KenLM. Ids count up
  // from 1 in the order of the calls.
  bool add_word(std::string_view word, float log_prob, float backoff);

  // words: [order] ids, the oldest first, order ≥ 2. All n-grams of an order are added before those of the next. False
  // if the n-gram is there already.
  bool add(const int32_t* words, int32_t order, float log_prob, float backoff);

  // log10 probability of an n-gram's last word if the n-gram itself were missing: the shorter n-gram's, plus the
  // back-off weight of the context. None if the context was not added.
  std::optional<float> backed_off(const int32_t* words, int32_t order);

  const std::vector<NGramEntry>& unigrams() const { return unigrams_; }
  const HashBuilder& ngrams() const { return ngrams_; }
  const HashBuilder& words() const { return words_; }
  // The words in the order of their ids, each followed by a line feed.
  const std::string& strings() const { return strings_; }

 private:
  std::optional<NGramEntry> find(const int32_t* words, int32_t order);
  float log_prob(const int32_t* words, int32_t order);
  NGramEntry entry(const int32_t* words, int32_t order);
  void set(const int32_t* words, int32_t order, NGramEntry entry);

  std::vector<NGramEntry> unigrams_;
  HashBuilder ngrams_;
  HashBuilder filled_in_;  // keys of n-grams that are only there because of longer ones
  HashBuilder words_;
  std::string strings_;
  bool has_unk_ = false;
};

}  // namespace asrkern
