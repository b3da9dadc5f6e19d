// Finds the n-grams of a model in tables that hold only hashes of them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/lm/ngram.h"

namespace asrkern {

// n-grams of one order.
struct NGramList {
  std::vector<int32_t> words;  // [count, order] ids, the oldest first
  std::vector<float> log_probs, backoffs;
};

// All n-grams of orders 2, 3, …. An n-gram can only be there if the one without its first word is marked as the end of
// a longer one, and the one without its last as the beginning. So pairs of those are tried: for order 2 all pairs of
// words, which is most of the time. Throws TextError if there are more than `most_pairs` of them, or if n-grams are
// left that are no such pairs, as in tables of another origin.
std::vector<NGramList> recover_ngrams(const NGramTables& tables, uint64_t most_pairs);

}  // namespace asrkern
