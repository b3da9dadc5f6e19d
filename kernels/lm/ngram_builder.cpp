#include "kernels/lm/ngram_builder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace asrkern {
namespace {

constexpr float kMissingUnk = -100;

uint64_t payload(NGramEntry entry) {
  uint64_t bits;
  memcpy(&bits, &entry, sizeof bits);
  return bits;
}

uint64_t key_of(const int32_t* words, int32_t order) {
  uint64_t key = uint64_t(words[order - 1]);
  for (int32_t i = order - 2; i >= 0; --i) key = ngram_key(key, words[i]);
  return key;
}

// An n-gram's entry as long as no longer n-gram begins or ends with it.
NGramEntry alone(float log_prob, float backoff) { return {-std::fabs(log_prob), backoff == 0 ? -0.0f : backoff}; }

}  // namespace

NGramBuilder::NGramBuilder() : unigrams_{alone(kMissingUnk, 0)}, strings_("<unk>\n") {
  words_.insert(murmur_hash("<unk>", 5), kUnk);
}

int32_t NGramBuilder::find(std::string_view word) {
  if (word == "<UNK>") return kUnk;
  const uint64_t* id = words_.find(murmur_hash(word.data(), word.size()));
  return id ? int32_t(*id) : -1;
}

bool NGramBuilder::add_word(std::string_view word, float log_prob, float backoff) {
  if (word == "<unk>" || word == "<UNK>") {
    unigrams_[kUnk] = alone(log_prob, backoff);
    return !std::exchange(has_unk_, true);
  }
  if (!words_.insert(murmur_hash(word.data(), word.size()), uint64_t(unigrams_.size())).second) return false;
  unigrams_.push_back(alone(log_prob, backoff));
  strings_.append(word).push_back('\n');
  return true;
}

bool NGramBuilder::add(const int32_t* words, int32_t order, float log_prob, float backoff) {
  if (!ngrams_.insert(key_of(words, order), payload(alone(log_prob, backoff))).second) return false;
  NGramEntry suffix = entry(words + 1, order - 1);
  suffix.log_prob = std::fabs(suffix.log_prob);
  set(words + 1, order - 1, suffix);
  NGramEntry context = entry(words, order - 1);
  if (!ngram_extends_right(context.backoff)) context.backoff = 0;
  set(words, order - 1, context);
  return true;
}

std::optional<NGramEntry> NGramBuilder::find(const int32_t* words, int32_t order) {
  if (order == 1) return unigrams_[words[0]];
  const uint64_t* found = ngrams_.find(key_of(words, order));
  if (!found) return std::nullopt;
  NGramEntry entry;
  memcpy(&entry, found, sizeof entry);
  return entry;
}

std::optional<float> NGramBuilder::backed_off(const int32_t* words, int32_t order) {
  const std::optional<NGramEntry> context = find(words, order - 1);
  if (!context || (order > 2 && filled_in_.find(key_of(words, order - 1)))) return std::nullopt;
  return context->backoff + log_prob(words + 1, order - 1);
}

float NGramBuilder::log_prob(const int32_t* words, int32_t order) {
  if (const std::optional<NGramEntry> found = find(words, order)) return ngram_log_prob(*found);
  const std::optional<NGramEntry> context = find(words, order - 1);
  return (context ? context->backoff : 0) + log_prob(words + 1, order - 1);
}

// The entry of an n-gram. Pruning may have left out an n-gram that a longer one begins or ends with. It is put in with
// the values of backing off, so that queries find their way to the longer one.
NGramEntry NGramBuilder::entry(const int32_t* words, int32_t order) {
  if (const std::optional<NGramEntry> found = find(words, order)) return *found;
  const float log_prob = ngram_log_prob(entry(words + 1, order - 1)) + entry(words, order - 1).backoff;
  add(words, order, std::clamp(log_prob, kLeastLog10, 0.0f), 0);
  filled_in_.insert(key_of(words, order), 0);
  return *find(words, order);
}

void NGramBuilder::set(const int32_t* words, int32_t order, NGramEntry entry) {
  if (order == 1)
    unigrams_[words[0]] = entry;
  else
    *ngrams_.find(key_of(words, order)) = payload(entry);
}

}  // namespace asrkern
