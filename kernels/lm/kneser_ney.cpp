#include "kernels/lm/kneser_ney.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/lm/text_error.h"

namespace asrkern {
namespace {

constexpr int32_t kBos = 1, kEos = 2;
constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

double discount(const KneserNey::Discounts& discounts, uint64_t count) {
  return count ? discounts[std::min<uint64_t>(count, 3) - 1] : 0;
}

// ARPA files have −99 for the logarithm of 0, which a discount of 0 can lead to.
float log10_or_least(double value) {
  constexpr float kLeast = -99;
  return value > 0 ? float(std::log10(value)) : kLeast;
}

}  // namespace

KneserNey::KneserNey(int32_t order, Tokenizer tokenizer) : order_(order), tokenizer_(std::move(tokenizer)) {
  for (const char* word : {"<unk>", "<s>", "</s>"}) add_word(word);
}

int32_t KneserNey::add_word(std::string_view word) {
  std::vector<Gram>& grams = levels_[1].grams;
  const auto [id, added] = words_.insert(murmur_hash(word.data(), word.size()), grams.size());
  if (added) {
    if (grams.size() == size_t(std::numeric_limits<int32_t>::max())) throw TextError("text: more than 2^31 words");
    grams.push_back({0, 0, 0, 0, int32_t(grams.size())});
    strings_.append(word).push_back('\n');
  }
  return int32_t(*id);
}

void KneserNey::feed(std::string_view text) {
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    if (rest_.empty()) {
      read_line(text.substr(0, end));
    } else {
      rest_.append(text.substr(0, end));
      read_line(rest_);
      rest_.clear();
    }
  }
  rest_.append(text);
}

void KneserNey::read_line(std::string_view line) {
  ++line_;
  ++text_line_;
  begin_sentence();
  tokenizer_(line, [this](std::string_view word) {
    const int32_t id = add_word(word);
    // KenLM takes both spellings for the unknown word.
    if (id <= kEos || word == "<UNK>")
      throw TextError("line " + std::to_string(text_line_) + " of the text: expected words, received the mark " +
                      quoted(word));
    append(id);
  });
  append(kEos);
}

void KneserNey::begin_sentence() {
  depth_ = 1;
  history_[0] = kBos;
  last_[1] = kBos;
}

void KneserNey::append(int32_t word) {
  const int32_t longest = std::min(depth_ + 1, order_);
  uint64_t keys[kMaxOrder + 1];
  keys[1] = uint64_t(word);
  for (int32_t n = 2; n <= longest; ++n) keys[n] = ngram_key(keys[n - 1], history_[n - 2]);

  // Goes from the longest n-gram to its suffixes until one is known already; so are all after that one.
  std::array<uint32_t, kMaxOrder + 1> numbers{};
  bool fresh = true;
  for (int32_t n = longest; n >= 1; --n) {
    std::vector<Gram>& grams = levels_[n].grams;
    if (!fresh) {
      numbers[n] = levels_[n + 1].grams[numbers[n + 1]].suffix;
      continue;
    }
    if (n == 1) {
      numbers[1] = uint32_t(word);
      fresh = false;
    } else {
      const auto [number, added] = levels_[n].numbers.insert(keys[n], grams.size());
      numbers[n] = uint32_t(*number);
      if (added) {
        if (grams.size() == std::numeric_limits<uint32_t>::max())
          throw TextError("text: more than 2^32 " + std::to_string(n) + "-grams");
        grams.push_back({0, 0, last_[n - 1], 0, word});
      }
      fresh = added;
    }
    if (n < longest) {
      levels_[n + 1].grams[numbers[n + 1]].suffix = numbers[n];
      ++grams[numbers[n]].adjusted;
    }
  }
  ++levels_[longest].grams[numbers[longest]].count;

  std::copy_backward(history_.begin(), history_.end() - 1, history_.end());
  history_[0] = word;
  last_ = numbers;
  depth_ = longest;
}

void KneserNey::finish(const std::vector<uint64_t>& prune, const std::optional<Discounts>& fallback) {
  if (!rest_.empty()) read_line(std::exchange(rest_, {}));
  if (line_ == 0) throw TextError("text: expected at least one sentence, received none");
  for (int32_t n = order_; n > 1; --n) {
    levels_[n].numbers = {};
    for (const Gram& gram : levels_[n].grams) levels_[n - 1].grams[gram.suffix].count += gram.count;
  }
  for (int32_t n = 1; n <= order_; ++n) {
    // N-grams that begin with <s> have no word before them, so their true counts stay.
    for (Gram& gram : levels_[n].grams)
      if (n == order_ || gram.adjusted == 0) gram.adjusted = gram.count;
  }
  uint32_t last = uint32_t(levels_[1].grams.size()) - 1;
  for (int32_t n = 1; n <= order_; ++n) {
    Level& level = levels_[n];
    level.prune = prune[n - 1];
    if (n > 1) last = last_extension(n, last);
    const std::optional<Discounts> found = discounts(level, last);
    if (!found && !fallback)
      throw TextError("discounts of order " + std::to_string(n) +
                      " cannot be told from the counts of this text: too few n-grams occur once, twice, three times or "
                      "four times, as in small or artificial texts; set discount_fallback to use fixed ones");
    level.discounts = found ? *found : *fallback;
  }
}

// Of the n-grams that end with the (n − 1)-gram `suffix`, the one whose first word has the highest id; `kNone` without
// any.
uint32_t KneserNey::last_extension(int32_t n, uint32_t suffix) const {
  const std::vector<Gram>& grams = levels_[n].grams;
  uint32_t best = kNone;
  int32_t highest = -1;
  for (size_t i = 0; i < grams.size() && suffix != kNone; ++i) {
    if (grams[i].suffix != suffix) continue;
    const Gram* first = &grams[i];
    for (int32_t k = n - 1; k >= 1; --k) first = &levels_[k].grams[first->context];
    if (first->word > highest) {
      highest = first->word;
      best = uint32_t(i);
    }
  }
  return best;
}

// Chen & Goodman, equation 26: D_k = k − (k + 1) · Y · t_{k+1} / t_k, Y = t_1 / (t_1 + 2 t_2), where t_k is the number
// of n-grams with adjusted count k. The last n-gram (sorted by last word, then by the words before) counts with its
// true count: lmplz does that, and in small texts it shows.
std::optional<KneserNey::Discounts> KneserNey::discounts(const Level& level, uint32_t last) const {
  double t[5] = {};
  for (size_t i = 0; i < level.grams.size(); ++i)
    if (const uint64_t count = i == last ? level.grams[i].count : level.grams[i].adjusted; count < 5) ++t[count];
  Discounts found;
  for (int32_t k = 1; k <= 3; ++k) {
    if (t[k] == 0) return std::nullopt;
    found[k - 1] = k - (k + 1) * t[1] / (t[1] + 2 * t[2]) * t[k + 1] / t[k];
    if (found[k - 1] < 0 || found[k - 1] > k) return std::nullopt;
  }
  return found;
}

void KneserNey::estimate(int32_t n) {
  Level& level = levels_[n];
  // For every context: the sum of its n-grams' adjusted counts, and the probability mass left for backing off.
  const size_t contexts = n == 1 ? 1 : levels_[n - 1].grams.size();
  std::vector<uint64_t> total(contexts);
  std::vector<double> gamma(contexts);
  for (const Gram& gram : level.grams) {
    total[gram.context] += gram.adjusted;
    gamma[gram.context] += kept(level, gram) ? discount(level.discounts, gram.adjusted) : double(gram.adjusted);
  }
  for (size_t i = 0; i < contexts; ++i)
    if (total[i]) gamma[i] /= double(total[i]);

  const double uniform = 1.0 / double(levels_[1].grams.size() - 1);
  std::vector<double> probs(level.grams.size());
  level.log_probs.resize(level.grams.size());
  level.backoffs.assign(level.grams.size(), 0);
  for (size_t i = 0; i < level.grams.size(); ++i) {
    const Gram& gram = level.grams[i];
    const double lower = n == 1 ? uniform : probs_[gram.suffix];
    probs[i] = (double(gram.adjusted) - discount(level.discounts, gram.adjusted)) / double(total[gram.context]) +
               gamma[gram.context] * lower;
    level.log_probs[i] = log10_or_least(probs[i]);
  }
  probs_ = std::move(probs);
  if (n == 1) {
    level.log_probs[kBos] = 0;
  } else {
    for (size_t i = 0; i < contexts; ++i)
      if (total[i]) levels_[n - 1].backoffs[i] = log10_or_least(gamma[i]);
  }
}

KneserNey::NGrams KneserNey::ngrams(int32_t n) const {
  const Level& level = levels_[n];
  NGrams result;
  for (size_t i = 0; i < level.grams.size(); ++i) {
    const Gram& gram = level.grams[i];
    if (!kept(level, gram)) continue;
    result.words.resize(result.words.size() + n);
    const Gram* at = &gram;
    for (int32_t k = n; k >= 1; --k) {
      result.words.end()[k - n - 1] = at->word;
      if (k > 1) at = &levels_[k - 1].grams[at->context];
    }
    result.log_probs.push_back(level.log_probs[i]);
    result.backoffs.push_back(level.backoffs[i]);
  }
  return result;
}

}  // namespace asrkern
