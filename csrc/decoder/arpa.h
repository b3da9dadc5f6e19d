// ARPA files: the text format of back-off n-gram models.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "csrc/decoder/ngram_builder.h"

namespace asrkern {

// Reads a file piece by piece. Throws TextError with the number of the line that is wrong.
class ArpaReader {
 public:
  // The next bytes of the file.
  void feed(std::string_view bytes);
  // The end of the file.
  void finish();

  int32_t order() const { return int32_t(counts_.size()); }
  NGramBuilder& builder() { return builder_; }

 private:
  enum class Part { BEFORE, COUNTS, NGRAMS, AFTER };

  void read_line(std::string_view line);
  void read_count(std::string_view line);
  void read_ngram(std::string_view line);
  void begin_section(std::string_view line);
  void end_section();
  [[noreturn]] void fail(const std::string& message) const;

  NGramBuilder builder_;
  std::string rest_;  // a line without its end
  uint64_t line_ = 0;
  Part part_ = Part::BEFORE;
  std::vector<uint64_t> counts_;  // as announced, of orders 1, 2, …
  int32_t section_ = 0;           // the order of the n-grams now read
  uint64_t read_ = 0;             // how many of them
};

// n-grams number begin … end − 1 as lines of a section. vocabulary: the words by id; words: [count, order]; backoffs:
// null for the highest order.
std::string arpa_lines(const std::vector<std::string_view>& vocabulary, const int32_t* words, const float* log_probs,
                       const float* backoffs, int32_t order, int64_t begin, int64_t end);

}  // namespace asrkern
