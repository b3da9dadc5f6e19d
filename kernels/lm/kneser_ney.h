// Interpolated modified Kneser-Ney estimation (Chen & Goodman 1998), with the choices of KenLM's lmplz (Heafield et al.
// 2013): n-grams at the beginning of a sentence keep their true counts, pruning goes by true counts, and unigrams are
// interpolated with the uniform distribution over the vocabulary without <s>.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/lm/hash_builder.h"
#include "kernels/lm/ngram.h"
#include "kernels/lm/tokenizer.h"

namespace asrkern {

class KneserNey {
 public:
  using Discounts = std::array<double, 3>;  // of counts 1, 2, and 3 or more

  // order: 1 … kMaxOrder.
  KneserNey(int32_t order, Tokenizer tokenizer);

  // A file follows: errors name its lines, counted from its first.
  void begin_text() { text_line_ = 0; }

  // The next bytes of a text, a sentence a line. Throws TextError for <s>, </s> and <unk>.
  void feed(std::string_view text);

  // The end of the text. prune: [order]; n-grams that occur at most so often are left out. The numbers never decrease,
  // and the first is 0. fallback: discounts for orders whose counts give none; without it they throw TextError.
  void finish(const std::vector<uint64_t>& prune, const std::optional<Discounts>& fallback);

  // Estimates the probabilities of order n and the back-off weights of order n − 1. Orders come one after the other.
  void estimate(int32_t n);

  // The estimated n-grams that are not pruned, in the order of their first occurrence in the text.
  struct NGrams {
    std::vector<int32_t> words;    // [count, n] ids
    std::vector<float> log_probs;  // [count] log10
    std::vector<float> backoffs;   // [count] log10; 0 in the highest order
  };
  NGrams ngrams(int32_t n) const;

  // The words in the order of their ids, each followed by a line feed; <unk>, <s> and </s> are the first.
  const std::string& strings() const { return strings_; }

 private:
  // An n-gram: `context` and `suffix` are the numbers of the (n − 1)-grams that it begins and ends with.
  struct Gram {
    uint64_t count;     // in the text. Before finish() only occurrences that end no n-gram of `order_` words
    uint64_t adjusted;  // how many different words come before it, or its count
    uint32_t context;
    uint32_t suffix;
    int32_t word;
  };
  struct Level {
    std::vector<Gram> grams;
    HashBuilder numbers;  // key → number
    uint64_t prune = 0;
    Discounts discounts{};
    std::vector<float> log_probs, backoffs;
  };

  int32_t add_word(std::string_view word);
  void begin_sentence();
  void append(int32_t word);
  void read_line(std::string_view line);
  uint32_t last_extension(int32_t n, uint32_t suffix) const;
  std::optional<Discounts> discounts(const Level& level, uint32_t last) const;
  bool kept(const Level& level, const Gram& gram) const { return level.prune == 0 || gram.count > level.prune; }

  int32_t order_;
  Tokenizer tokenizer_;
  std::string rest_;                   // the beginning of a line whose end has not come
  uint64_t line_ = 0, text_line_ = 0;  // lines of all texts, and of this one
  HashBuilder words_;
  std::string strings_;
  std::array<Level, kMaxOrder + 1> levels_;  // by order, from 1; the number of a unigram is its word id
  std::vector<double> probs_;                // of the order estimated last

  // How many words precede the next one, and the numbers of the n-grams that they end, by order.
  int32_t depth_ = 0;
  std::array<int32_t, kMaxOrder> history_{};
  std::array<uint32_t, kMaxOrder + 1> last_{};
};

}  // namespace asrkern
