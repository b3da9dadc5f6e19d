// Makes the tables of kernels/common/ngram.h from the n-grams of a back-off model.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "csrc/decoder/hash_builder.h"
#include "kernels/common/ngram.h"

namespace asrkern {

class NGramBuilder {
 public:
  // <unk> is there from the beginning, with KenLM's log-probability for models without it.
  NGramBuilder();

  int32_t vocabulary() const { return int32_t(unigrams_.size()); }

  // The id of a word; −1 if there is none. <UNK> is <unk>.
  int32_t find(std::string_view word);

  // False: the word is there already. Ids count up from 1 in the order of the calls.
  bool add_word(std::string_view word, float log_prob, float backoff);

  // words: [order] ids, oldest first, order ≥ 2. All n-grams of an order are added before those of the next.
  // False: the n-gram is there already.
  bool add(const int32_t* words, int32_t order, float log_prob, float backoff);

  const std::vector<NGramEntry>& unigrams() const { return unigrams_; }
  const HashBuilder& ngrams() const { return ngrams_; }
  const HashBuilder& words() const { return words_; }
  // The words in the order of their ids, each followed by a line feed.
  const std::string& strings() const { return strings_; }

 private:
  NGramEntry entry(const int32_t* words, int32_t order);
  void set(const int32_t* words, int32_t order, NGramEntry entry);

  std::vector<NGramEntry> unigrams_;
  HashBuilder ngrams_;
  HashBuilder words_;
  std::string strings_;
  bool has_unk_ = false;
};

}  // namespace asrkern
