#include "kernels/lm/ngram_recovery.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "kernels/lm/text_error.h"

namespace asrkern {
namespace {

constexpr int32_t kLastWord = std::numeric_limits<int32_t>::max();
constexpr size_t kAhead = 64;  // pairs between requesting memory and reading it

uint64_t key_of(const int32_t* words, int32_t order) {
  uint64_t key = uint64_t(words[order - 1]);
  for (int32_t i = order - 2; i >= 0; --i) key = ngram_key(key, words[i]);
  return key;
}

uint64_t count_ngrams(const NGramTables& tables) {
  uint64_t count = 0;
  if (tables.codebook)
    for (uint64_t i = 0; i < tables.quantized.size; ++i) count += tables.quantized.slots[i] != 0;
  else
    for (uint64_t i = 0; i < tables.ngrams.size; ++i) count += tables.ngrams.slots[i].key != 0;
  return count;
}

// Looks up n-grams of one order and keeps those that are there.
class Search {
 public:
  Search(const NGramTables& tables, int32_t order) : tables_(tables), order_(order) {}

  // end: the n-gram's words without its first; key: of the n-gram.
  void ask(uint64_t key, int32_t first, const int32_t* end) {
    Waiting& place = waiting_[asked_++ % kAhead];
    if (asked_ > kAhead) answer(place);
    place = {key, ngram_prefetch_slot(tables_, key), end, first};
  }

  void finish() {
    for (uint64_t i = asked_ > kAhead ? asked_ - kAhead : 0; i < asked_; ++i) answer(waiting_[i % kAhead]);
  }

  std::vector<int32_t> words;  // [count, order]
  std::vector<NGramEntry> entries;

 private:
  struct Waiting {
    uint64_t key;
    const void* slot;
    const int32_t* end;
    int32_t first;
  };

  void answer(const Waiting& asked) {
    NGramEntry entry;
    if (!ngram_find(tables_, asked.key, asked.slot, entry)) return;
    words.push_back(asked.first);
    words.insert(words.end(), asked.end, asked.end + order_ - 1);
    entries.push_back(entry);
  }

  const NGramTables tables_;
  const int32_t order_;
  uint64_t asked_ = 0;
  Waiting waiting_[kAhead];
};

}  // namespace

std::vector<NGramList> recover_ngrams(const NGramTables& tables, uint64_t most_pairs) {
  std::vector<int32_t> words;  // [count, order − 1] of the order below
  std::vector<NGramEntry> entries(tables.unigrams, tables.unigrams + tables.vocabulary);
  for (int32_t word = 0; word < tables.vocabulary; ++word) words.push_back(word);
  const uint64_t all = count_ngrams(tables);
  uint64_t found = 0, pairs = 0;
  std::vector<NGramList> lists;
  for (int32_t order = 2; order <= tables.order; ++order) {
    const int32_t shorter = order - 1;
    // The first words of beginnings, by the key of the words that follow them.
    std::vector<std::pair<uint64_t, int32_t>> beginnings;
    std::vector<size_t> ends;
    for (size_t i = 0; i < entries.size(); ++i) {
      const int32_t* const ngram = words.data() + i * size_t(shorter);
      if (ngram_extends_right(entries[i].backoff))
        beginnings.emplace_back(shorter > 1 ? key_of(ngram + 1, shorter - 1) : 0, ngram[0]);
      if (ngram_extends_left(entries[i].log_prob)) ends.push_back(i);
    }
    std::sort(beginnings.begin(), beginnings.end());
    Search search(tables, order);
    for (const size_t i : ends) {
      const int32_t* const ngram = words.data() + i * size_t(shorter);
      const uint64_t middle = shorter > 1 ? key_of(ngram, shorter - 1) : 0, key = key_of(ngram, shorter);
      const auto first = std::lower_bound(beginnings.begin(), beginnings.end(), std::pair(middle, int32_t(0)));
      const auto last = std::upper_bound(first, beginnings.end(), std::pair(middle, kLastWord));
      pairs += uint64_t(last - first);
      if (pairs > most_pairs)
        throw TextError("expected at most " + std::to_string(most_pairs) +
                        " pairs of n-grams to try, received more: " + std::to_string(beginnings.size()) +
                        " begin a longer one, " + std::to_string(ends.size()) + " end one");
      for (auto beginning = first; beginning != last; ++beginning)
        search.ask(ngram_key(key, beginning->second), beginning->second, ngram);
    }
    search.finish();
    words = std::move(search.words);
    entries = std::move(search.entries);
    found += entries.size();
    NGramList list;
    list.words = words;
    for (const NGramEntry& entry : entries) {
      list.log_probs.push_back(ngram_log_prob(entry));
      list.backoffs.push_back(entry.backoff + 0.0f);  // −0 becomes 0
    }
    lists.push_back(std::move(list));
  }
  if (found != all)
    throw TextError("expected tables of " + std::to_string(all) +
                    " n-grams whose ends and beginnings are marked, found " + std::to_string(found) + " such n-grams");
  return lists;
}

}  // namespace asrkern
