// ARPA files, the text format of back-off n-gram models; and IRSTLM's iARPA, which is ARPA with weights that the reader
// has to interpolate.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/lm/ngram_builder.h"
#include "kernels/lm/ngram_recovery.h"

namespace asrkern {

// Reads a file piece by piece. Throws TextError with the number of the line that is wrong.
class ArpaReader {
 public:
  // keep: whether the n-grams are kept, too, and not only their hashes.
  explicit ArpaReader(bool keep = false) : keep_(keep) {}

  // The next bytes of the file.
  void feed(std::string_view bytes);
  // The end of the file.
  void finish();

  int32_t order() const { return int32_t(counts_.size()); }
  NGramBuilder& builder() { return builder_; }
  // What the words are, as a comment of asrkern's says; empty without such a comment.
  const std::string& unit() const { return unit_; }
  // The n-grams of orders 2, 3, … as they were read, if they are kept.
  const std::vector<NGramList>& kept() const { return kept_; }

  // Sentences for people about what was not read as it stands in the file.
  std::vector<std::string> warnings() const;

 private:
  enum class Part { kBefore, kCounts, kNGrams, kAfter };

  // A kind of deviation: how often it occurs, and the first one's line and text.
  struct Deviation {
    uint64_t count = 0;
    uint64_t line;
    std::string text;
  };

  void read_line(std::string_view line);
  void read_header(std::string_view line);
  void read_count(std::string_view line);
  void read_ngram(std::string_view line);
  void begin_section(std::string_view line);
  void end_section();
  float read_log_prob(std::string_view field);
  float read_backoff(std::string_view field, std::string_view line);
  void note(Deviation& deviation, std::string_view text);
  void check_length(size_t bytes) const;
  [[noreturn]] void fail_parts(std::string_view line) const;
  [[noreturn]] void fail(const std::string& message) const;

  const bool keep_;
  std::vector<NGramList> kept_;
  NGramBuilder builder_;
  std::string rest_;  // the beginning of a line whose end has not come
  uint64_t line_ = 0;
  Part part_ = Part::kBefore;
  std::vector<uint64_t> counts_;  // of n-grams of orders 1, 2, …, as the header announces
  int32_t section_ = 0;           // the order of the n-grams now read
  uint64_t read_ = 0;             // how many of them are read
  uint64_t ngrams_ = 0;           // n-grams of all orders
  uint64_t idle_ = 0;             // bytes of comments and blank lines
  bool headed_ = false;           // there is text before the section of counts
  bool interpolated_ = false;     // it is iARPA's header
  std::string unit_;
  Deviation header_, repeated_, above_zero_;
};

// N-grams begin … end − 1 as lines of a section. vocabulary: the words by id; words: [count, order]; backoffs: null for
// the highest order.
std::string arpa_lines(const std::vector<std::string_view>& vocabulary, const int32_t* words, const float* log_probs,
                       const float* backoffs, int32_t order, int64_t begin, int64_t end);

}  // namespace asrkern
