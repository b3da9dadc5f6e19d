#include "kernels/lm/arpa.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "kernels/lm/text_error.h"
#include "kernels/lm/tokenizer.h"

namespace asrkern {
namespace {

// The longest line, in bytes. Lines of n-grams have a few hundred; without a limit a small compressed file could take
// all memory.
constexpr size_t kMaxLine = size_t(1) << 16;
// The most bytes of comments and blank lines: the first number, and the second for each n-gram.
constexpr uint64_t kMaxIdle = uint64_t(1) << 20, kMaxIdlePerNGram = 16;
// How far above 0 rounding can leave a log10 probability.
constexpr float kRounding = 1e-3f;
// How a comment begins that says what the words are; Estimate.to_arpa writes it.
constexpr std::string_view kUnitComment = "# asrkern: unit=";
// The log10 of probability 0, as SRILM writes it.
constexpr float kNoProbability = -99;

// Cuts the next field off a line; empty at the end. Fields are separated by what separates words of texts.
std::string_view next_field(std::string_view& line) {
  const char *begin = line.data(), *const last = begin + line.size();
  while (begin < last && is_space(*begin)) ++begin;
  const char* const end = find_space(begin, last);
  line = {end, size_t(last - end)};
  return {begin, size_t(end - begin)};
}

template <class T>
std::optional<T> parse(std::string_view field) {
  if (field.starts_with('+')) field.remove_prefix(1);
  T value;
  const char* const last = field.data() + field.size();
  const auto [end, error] = std::from_chars(field.data(), last, value);
  if (error != std::errc() || end != last) return std::nullopt;
  return value;
}

std::optional<float> parse_log10(std::string_view field) {
  const std::optional<float> value = parse<float>(field);
  if (value && std::isfinite(*value)) return value;
  if (value && *value < 0) return kNoProbability;
  // Numbers too small for a float are errors to from_chars.
  if (const std::optional<double> exact = parse<double>(field); exact && std::fabs(*exact) < 1) return float(*exact);
  return std::nullopt;
}

// log10(10^a + 10^b)
float add_log10(float a, float b) { return float(std::log10(std::pow(10.0, double(a)) + std::pow(10.0, double(b)))); }

bool ends_with_arpa(std::string_view word) {
  constexpr std::string_view kName = "arpa";
  return word.size() >= kName.size() && std::equal(kName.begin(), kName.end(), word.end() - kName.size(),
                                                   [](char a, char b) { return a == (b | 0x20); });
}

std::string section_name(int32_t order) { return "\\" + std::to_string(order) + "-grams:"; }

}  // namespace

void ArpaReader::fail(const std::string& message) const {
  throw TextError("line " + std::to_string(line_) + ": " + message);
}

void ArpaReader::note(Deviation& deviation, std::string_view text) {
  if (deviation.count++) return;
  deviation.line = line_;
  deviation.text = quoted(text);
}

std::vector<std::string> ArpaReader::warnings() const {
  std::vector<std::string> warnings;
  const auto warn = [&](const Deviation& deviation, const char* before, const char* after) {
    if (deviation.count == 0) return;
    std::string more = deviation.count > 1 ? " (and " + std::to_string(deviation.count - 1) + " more)" : "";
    warnings.push_back("line " + std::to_string(deviation.line) + ": " + before + deviation.text + after + more);
  };
  warn(header_, "", " before \\data\\ is taken for a comment");
  warn(repeated_, "n-gram that was there before: ", "; the first one counts, of <unk> the last, as with KenLM");
  warn(above_zero_, "log10 probability above 0: ", ", read as 0");
  return warnings;
}

void ArpaReader::check_length(size_t bytes) const {
  if (bytes > kMaxLine) fail("expected lines of at most " + std::to_string(kMaxLine) + " bytes, received a longer one");
}

void ArpaReader::feed(std::string_view bytes) {
  for (size_t end; (end = bytes.find('\n')) != std::string_view::npos; bytes.remove_prefix(end + 1)) {
    ++line_;
    check_length(rest_.size() + end);
    if (rest_.empty()) {
      read_line(bytes.substr(0, end));
    } else {
      rest_.append(bytes.substr(0, end));
      read_line(rest_);
      rest_.clear();
    }
  }
  if (rest_.size() + bytes.size() > kMaxLine) ++line_;
  check_length(rest_.size() + bytes.size());
  rest_.append(bytes);
}

void ArpaReader::finish() {
  if (!rest_.empty()) {
    ++line_;
    read_line(rest_);
  }
  if (part_ == Part::kBefore)
    fail("expected \\data\\, received the end of the file: this is no ARPA file" +
         (header_.count ? ", it begins with " + header_.text : ""));
  if (part_ != Part::kAfter) fail("expected \\end\\, received the end of the file: it is cut short");
}

void ArpaReader::read_line(std::string_view line) {
  if (constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf"; line_ == 1 && line.starts_with(kByteOrderMark))
    line.remove_prefix(kByteOrderMark.size());
  const size_t bytes = line.size() + 1;
  while (!line.empty() && is_space(line.back())) line.remove_suffix(1);
  while (!line.empty() && is_space(line.front())) line.remove_prefix(1);
  if (part_ == Part::kNGrams && !line.empty() && line.front() != '\\') {
    read_ngram(line);
  } else if (line == "\\data\\" && part_ == Part::kBefore) {
    part_ = Part::kCounts;
  } else if (line.empty() || part_ == Part::kBefore) {
    idle_ += bytes;
    if (idle_ > kMaxIdle + kMaxIdlePerNGram * ngrams_)
      fail(part_ == Part::kBefore ? "expected \\data\\ before so much else: this is no ARPA file"
                                  : "expected fewer blank lines");
    if (!line.empty()) read_header(line);
  } else if (part_ == Part::kAfter) {
    fail("expected nothing after \\end\\, received " + quoted(line));
  } else if (line == "\\end\\") {
    if (section_ == 0 || section_ < order()) fail("expected " + section_name(section_ + 1) + ", received '\\end\\'");
    end_section();
    part_ = Part::kAfter;
  } else if (line.front() == '\\' && line.ends_with("-grams:")) {
    begin_section(line);
  } else if (part_ == Part::kCounts) {
    read_count(line);
  } else {
    read_ngram(line);
  }
}

// Text before \data\ is a comment, unless it names a format in which the numbers mean something else.
void ArpaReader::read_header(std::string_view line) {
  if (line.starts_with(kUnitComment)) unit_ = line.substr(kUnitComment.size());
  std::string_view rest = line;
  const std::string_view word = next_field(rest);
  if (word.starts_with("iARPA")) {
    interpolated_ = true;
  } else if (word.starts_with("qARPA")) {
    fail("expected an ARPA file, received IRSTLM's quantised qARPA: take the file that it was quantised from");
  } else if (ends_with_arpa(word) && word.front() != '#' && word != "ARPA") {
    fail("expected an ARPA file, received one of the format " + quoted(word) + ": convert it to ARPA");
  } else if (line.front() != '#' && !headed_ && line.find("ARPA") == std::string_view::npos) {
    note(header_, line);
  }
  headed_ = true;
}

void ArpaReader::read_count(std::string_view line) {
  const std::string_view all = line;
  const std::string_view keyword = next_field(line);
  const size_t equals = line.find('=');
  if (keyword != "ngram" || equals == std::string_view::npos)
    fail("expected 'ngram ORDER=COUNT', received " + quoted(all));
  std::string_view left = line.substr(0, equals), right = line.substr(equals + 1);
  const auto order = parse<int32_t>(next_field(left));
  const auto count = parse<uint64_t>(next_field(right));
  if (!order || !count || !next_field(left).empty() || !next_field(right).empty())
    fail("expected 'ngram ORDER=COUNT', received " + quoted(all));
  if (*order != this->order() + 1)
    fail("expected the count of order " + std::to_string(this->order() + 1) + ", received " + quoted(all));
  if (*order > kMaxOrder) fail("expected orders up to " + std::to_string(kMaxOrder) + ", received " + quoted(all));
  counts_.push_back(*count);
}

void ArpaReader::begin_section(std::string_view line) {
  if (part_ == Part::kNGrams) end_section();
  if (counts_.empty()) fail("expected 'ngram 1=COUNT', received " + quoted(line));
  const std::string expected = section_ < order() ? section_name(section_ + 1) : "\\end\\";
  if (line != expected) fail("expected " + expected + ", received " + quoted(line));
  part_ = Part::kNGrams;
  if (section_++ && keep_) kept_.emplace_back();
  read_ = 0;
}

void ArpaReader::end_section() {
  if (read_ != counts_[section_ - 1])
    fail("expected " + std::to_string(counts_[section_ - 1]) + " " + std::to_string(section_) +
         "-grams, as \\data\\ announces, received " + std::to_string(read_));
  if (section_ == 1)
    for (const char* word : {"<s>", "</s>"})
      if (builder_.find(word) < 0) fail("expected " + std::string(word) + " among the 1-grams, received none");
}

void ArpaReader::read_ngram(std::string_view line) {
  const std::string_view all = line;
  if (++read_ > counts_[section_ - 1])
    fail("expected " + std::to_string(counts_[section_ - 1]) + " " + std::to_string(section_) +
         "-grams, as \\data\\ announces, received another: " + quoted(all));
  ++ngrams_;
  float log_prob = read_log_prob(next_field(line));
  std::string_view word;
  int32_t ids[kMaxOrder];
  for (int32_t i = 0; i < section_; ++i) {
    word = next_field(line);
    if (word.empty()) fail("expected " + std::to_string(section_) + " words, received " + quoted(all));
    if (section_ == 1) break;
    ids[i] = builder_.find(word);
    if (ids[i] < 0) fail("expected words that are among the 1-grams, received " + quoted(word));
  }
  float backoff = 0;
  if (const std::string_view field = next_field(line); !field.empty()) {
    backoff = read_backoff(field, all);
    if (!next_field(line).empty()) fail_parts(all);
  }
  if (interpolated_ && section_ > 1) {
    // IRSTLM has no weight to interpolate an n-gram with if its beginning is missing, so it leaves the n-gram out.
    const std::optional<float> lower = builder_.backed_off(ids, section_);
    if (!lower) return;
    log_prob = add_log10(log_prob, *lower);
    if (log_prob > kRounding) fail("expected probabilities that interpolate to at most 1, received " + quoted(all));
    log_prob = std::min(log_prob, 0.0f);
  }
  const bool added =
      section_ == 1 ? builder_.add_word(word, log_prob, backoff) : builder_.add(ids, section_, log_prob, backoff);
  if (!added) note(repeated_, all);
  if (!added || !keep_ || section_ == 1) return;
  NGramList& list = kept_[size_t(section_ - 2)];
  list.words.insert(list.words.end(), ids, ids + section_);
  list.log_probs.push_back(log_prob);
  list.backoffs.push_back(backoff);
}

float ArpaReader::read_log_prob(std::string_view field) {
  const std::optional<float> value = parse_log10(field);
  if (value && is_log_prob(*value)) return *value;
  if (!value) fail("expected a log10 probability, received " + quoted(field));
  if (*value > kRounding) fail("expected a log10 probability of at most 0, received " + quoted(field));
  if (*value < kLeastLog10) fail("expected a log10 probability of at least -1e6, received " + quoted(field));
  note(above_zero_, field);
  return 0;
}

float ArpaReader::read_backoff(std::string_view field, std::string_view line) {
  const std::optional<float> value = parse_log10(field);
  if (!value) fail_parts(line);
  if (section_ == order() && *value != 0)
    fail("expected no back-off weight in the highest order, received " + quoted(field));
  if (!is_backoff(*value)) fail("expected a back-off weight between -1e6 and 99, received " + quoted(field));
  return *value;
}

void ArpaReader::fail_parts(std::string_view line) const {
  fail("expected a probability, " + std::to_string(section_) + " words and a back-off weight, received " +
       quoted(line));
}

std::string arpa_lines(const std::vector<std::string_view>& vocabulary, const int32_t* words, const float* log_probs,
                       const float* backoffs, int32_t order, int64_t begin, int64_t end) {
  std::string lines;
  char digits[32];
  const auto append = [&](float value) { lines.append(digits, std::to_chars(digits, digits + 32, value).ptr); };
  for (int64_t i = begin; i < end; ++i) {
    append(log_probs[i]);
    for (int32_t k = 0; k < order; ++k) {
      lines.push_back(k ? ' ' : '\t');
      lines.append(vocabulary[words[i * order + k]]);
    }
    if (backoffs) {
      lines.push_back('\t');
      append(backoffs[i]);
    }
    lines.push_back('\n');
  }
  return lines;
}

}  // namespace asrkern
