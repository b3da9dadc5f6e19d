// The tables of an n-gram model as Python hands them over: views of arrays that are kept alive.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "kernels/lm/kenlm_trie.h"
#include "kernels/lm/ngram.h"
#include "kernels/lm/ngram_trie.h"
#include "kernels/lm/tokenizer.h"

namespace asrkern {

// A trie in a file of KenLM, which is kept alive.
class MappedTrie {
 public:
  // file: [bytes] uint8, from the vocabulary on; shape: [2 + order] int64, see KenlmTrie. Throws TextError where parts
  // do not fit into the file or words are out of order.
  MappedTrie(pybind11::array file, pybind11::array shape);
  MappedTrie(const MappedTrie&) = delete;
  MappedTrie& operator=(const MappedTrie&) = delete;

  // Entries of the words, as in NGramTables.
  pybind11::array_t<float> unigrams() const;

  // Throws TextError where the trie holds what no language model has. It reads all of it.
  void check_values() const;

  const KenlmTrie& parsed() const { return parsed_; }
  const NGramTrie& trie() const { return trie_; }

 private:
  pybind11::array file_;
  KenlmTrie parsed_;
  NGramTrie trie_;
};

class NGramModel {
 public:
  // unigrams: [vocabulary, 2] float32; ngrams: [size, 2] int64, or, with a codebook [2, 256] float32, [size] int64;
  // words: [size, 2] int64. characters, space: see Tokenizer. trie: None, or a MappedTrie in place of ngrams and words.
  NGramModel(pybind11::array unigrams, pybind11::object ngrams, pybind11::object codebook, pybind11::object words,
             int64_t order, int64_t bos, int64_t eos, bool characters, std::string space, pybind11::object trie);

  // Throws TextError where a table holds what no language model has.
  void check_values() const;

  const NGramTables& tables() const { return tables_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  void view_trie(const MappedTrie& trie, int64_t order);
  void view_tables(const pybind11::array& ngrams, const pybind11::object& codebook, const pybind11::array& words);

  pybind11::tuple kept_;
  const MappedTrie* mapped_ = nullptr;
  NGramTables tables_{};
  Tokenizer tokenizer_;
};

// Adds classes and functions of language models to the module.
void bind_ngram(pybind11::module_& m);

}  // namespace asrkern
