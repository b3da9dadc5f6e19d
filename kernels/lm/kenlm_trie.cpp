#include "kernels/lm/kenlm_trie.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>

namespace asrkern {
namespace {

constexpr int kMostCodeBits = 25;
constexpr uint8_t kQuantizationVersion = 2, kPointersVersion = 0;
// Bits of values that are not coded. Of the log-probability, the sign is left out.
constexpr int kLogProbBits = 31, kBackoffBits = 32;

// How many of a pointer's upper bits are left out of the records because the array of offsets says them: the number
// that costs the least memory, at most `limit`. records: how many have pointers. greatest: of the pointers.
int left_out_bits(uint64_t records, uint64_t greatest, int limit) {
  const int width = std::bit_width(greatest);
  int best = 0;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int bits = 0; bits <= std::min(width, limit); ++bits) {
    const int64_t cost = int64_t(greatest >> (width - bits)) * 64 - int64_t(records) * bits;
    if (cost < least) {
      least = cost;
      best = bits;
    }
  }
  return best;
}

std::string ngrams_of(int32_t order) { return std::to_string(order) + "-grams"; }

}  // namespace

KenlmTrie::KenlmTrie(std::string_view file, std::span<const int64_t> shape) : file_(file) {
  if (shape.size() < 4 || shape.size() > 2 + size_t(kMaxOrder))
    throw TextError("counts: expected 2 to " + std::to_string(kMaxOrder) + ", received " +
                    std::to_string(std::max<size_t>(shape.size(), 2) - 2));
  const bool quantized = shape[0] != 0, compressed_pointers = shape[1] != 0;
  counts_.assign(shape.begin() + 2, shape.end());
  // A record has at least a bit, so sums and products of these counts cannot overflow.
  for (const uint64_t count : counts_)
    if (count > 8 * uint64_t(file.size()))
      throw TextError("expected counts that fit into " + std::to_string(file.size()) + " bytes, received " +
                      std::to_string(count));
  if (counts_[0] == 0 || counts_[0] > uint64_t(std::numeric_limits<int32_t>::max()))
    throw TextError("expected 1 to 2^31 - 1 words, received " + std::to_string(counts_[0]));

  const uint64_t stored = trie_load(part(8, "vocabulary"));
  hashes_ = part(8 * counts_[0], "vocabulary");
  if (stored >= counts_[0])
    throw TextError("expected less than " + std::to_string(counts_[0]) + " words beside <unk>, received " +
                    std::to_string(stored));
  vocabulary_ = uint32_t(stored + 1);

  const size_t order = counts_.size();
  int log_prob_bits = kLogProbBits, backoff_bits = kBackoffBits;
  std::vector<const char*> codebooks(2 * (order - 1), nullptr);  // of log-probabilities, of back-off weights
  if (quantized) {
    const char* const header = part(8, "quantisation");
    if (uint8_t(header[0]) != kQuantizationVersion)
      throw TextError("expected quantisation of version " + std::to_string(kQuantizationVersion) +
                      ", received version " + std::to_string(uint8_t(header[0])));
    log_prob_bits = uint8_t(header[1]);
    backoff_bits = uint8_t(header[2]);
    if (std::min(log_prob_bits, backoff_bits) < 1 || std::max(log_prob_bits, backoff_bits) > kMostCodeBits)
      throw TextError("expected 1 to " + std::to_string(kMostCodeBits) + " bits for a value, received " +
                      std::to_string(log_prob_bits) + " and " + std::to_string(backoff_bits));
    for (size_t n = 0; n + 1 < order; ++n) {
      codebooks[2 * n] = part(uint64_t(4) << log_prob_bits, "quantisation");
      if (n + 2 < order) codebooks[2 * n + 1] = part(uint64_t(4) << backoff_bits, "quantisation");
    }
  }

  // One more than there are words is the end of the last one's n-grams; one is never used.
  unigrams_ = part(kUnigramBytes * (counts_[0] + 2), "1-grams");
  int pointer_limit = 0;
  if (compressed_pointers && order > 2) {
    if (file_.size() - bytes_ < 2) part(2, "pointers");
    const char* const header = file_.data() + bytes_;
    if (uint8_t(header[0]) != kPointersVersion)
      throw TextError("expected compressed pointers of version " + std::to_string(kPointersVersion) +
                      ", received version " + std::to_string(uint8_t(header[0])));
    pointer_limit = uint8_t(header[1]);
  }
  for (size_t n = 1; n < order; ++n) {
    const bool longest = n + 1 == order;
    TrieLevel level{};
    level.count = counts_[n];
    level.word_bits = std::bit_width(counts_[0]);
    level.log_prob_bits = log_prob_bits;
    level.backoff_bits = longest ? 0 : backoff_bits;
    level.log_probs = codebooks[2 * (n - 1)];
    level.backoffs = codebooks[2 * (n - 1) + 1];
    level.next_bits = longest ? -1 : std::bit_width(counts_[n + 1]);
    if (compressed_pointers && !longest) {
      level.next_bits -= left_out_bits(level.count + 1, counts_[n + 1], pointer_limit);
      level.offset_count = (counts_[n + 1] >> level.next_bits) + 1;
      const uint64_t aligned = (bytes_ + 7) / 8 * 8 - bytes_;
      level.offsets = part(8 * (1 + level.offset_count) + 7, "pointers") + aligned + 8;
    }
    level.record_bits = level.word_bits + log_prob_bits + level.backoff_bits + std::max(level.next_bits, 0);
    // There is one more record, for the end of the last one's n-grams, and room to read 8 bytes anywhere.
    level.records =
        part(((1 + level.count) * uint64_t(level.record_bits) + 7) / 8 + 8, ngrams_of(int32_t(n + 1)).c_str());
    levels_.push_back(level);
    ngrams_ += level.count;
  }
}

void KenlmTrie::check_words() const {
  for (uint32_t word = 2; word < vocabulary_; ++word)
    if (word_hash(word) <= word_hash(word - 1))
      throw TextError("expected words in the order of their hashes, each once, received word " + std::to_string(word) +
                      " out of order");
}

// The next bytes of the file.
const char* KenlmTrie::part(uint64_t bytes, const char* name) {
  if (bytes > file_.size() - bytes_)
    throw TextError(std::string(name) + ": expected " + std::to_string(bytes) + " bytes, received the last " +
                    std::to_string(file_.size() - bytes_) + " of the file: it is cut short");
  bytes_ += bytes;
  return file_.data() + bytes_ - bytes;
}

void KenlmTrie::fail_range(int32_t order, uint64_t at, uint64_t begin, uint64_t end, uint64_t count) {
  throw TextError("expected pointers to " + ngrams_of(order) + " that grow from " + std::to_string(at) +
                  " to at most " + std::to_string(count) + ", received " + std::to_string(begin) + " and " +
                  std::to_string(end));
}

void KenlmTrie::fail_word(int32_t order, int64_t before, uint64_t word) const {
  throw TextError(ngrams_of(order) + ": expected a word after " + std::to_string(before) + " and below " +
                  std::to_string(vocabulary_) + ", received " + std::to_string(word));
}

void KenlmTrie::check_unused(uint64_t begin, uint64_t end) const {
  if (begin < end)
    throw TextError("expected n-grams of " + std::to_string(vocabulary_) + " words, received some of another word");
}

void KenlmTrie::check_complete(int32_t order, uint64_t read, uint64_t count) {
  if (read != count)
    throw TextError("expected pointers to all " + std::to_string(count) + " " + ngrams_of(order) +
                    ", received pointers to " + std::to_string(read));
}

}  // namespace asrkern
