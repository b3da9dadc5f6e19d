// Checks of tables from outside: numbers that a language model can have, and searches that end soon.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "kernels/lm/hash_builder.h"
#include "kernels/lm/ngram.h"
#include "kernels/lm/ngram_builder.h"
#include "kernels/lm/text_error.h"

namespace asrkern {

// log_prob: its sign is a mark, see NGramEntry.
inline void check_entry(float log_prob, float backoff, const char* table) {
  if (is_log_prob(-std::fabs(log_prob)) && is_backoff(backoff)) return;
  char received[64];
  snprintf(received, sizeof received, "%g and %g", -std::fabs(double(log_prob)), double(backoff));
  throw TextError(
      std::string(table) +
      ": expected log10 probabilities between -1e6 and 0 and back-off weights between -1e6 and 99, received " +
      received);
}

// Whether all searches end within kMaxDistance, as in the tables that are built here.
template <class Slot>
void check_searches(const Slot* slots, uint64_t size, const char* table) {
  uint64_t run = 0;
  for (uint64_t group = 0; group < size; group += kHashGroup) {
    run = hash_left(slots + group) ? run + 1 : 0;
    if (run > 2 * kMaxDistance) throw TextError(std::string(table) + ": expected a hash table, received other numbers");
  }
}

inline void check_tables(const NGramTables& tables) {
  for (int32_t word = 0; word < tables.vocabulary; ++word)
    check_entry(tables.unigrams[word].log_prob, tables.unigrams[word].backoff, "unigrams");
  check_searches(tables.words.slots, tables.words.size, "words");
  for (uint64_t i = 0; i < tables.words.size; ++i)
    if (tables.words.slots[i].key && tables.words.slots[i].payload >= uint64_t(tables.vocabulary))
      throw TextError("words: expected ids below " + std::to_string(tables.vocabulary) + ", received " +
                      std::to_string(tables.words.slots[i].payload));
  if (tables.codebook) {
    for (int i = 0; i < 256; ++i) check_entry(tables.codebook[i], tables.codebook[256 + i], "codebook");
    check_searches(tables.quantized.slots, tables.quantized.size, "ngrams");
  } else {
    check_searches(tables.ngrams.slots, tables.ngrams.size, "ngrams");
    for (uint64_t i = 0; i < tables.ngrams.size; ++i) {
      NGramEntry entry;
      memcpy(&entry, &tables.ngrams.slots[i].payload, sizeof entry);
      check_entry(entry.log_prob, entry.backoff, "ngrams");
    }
  }
}

}  // namespace asrkern
