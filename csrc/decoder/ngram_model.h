// The tables of an n-gram model as Python hands them over: views of arrays that are kept alive.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "kernels/lm/ngram.h"
#include "kernels/lm/tokenizer.h"

namespace asrkern {

class NGramModel {
 public:
  // unigrams: [vocabulary, 2] float32; ngrams: [size, 2] int64, or, with a codebook [2, 256] float32, [size] int64;
  // words: [size, 2] int64. characters, space: see Tokenizer.
  NGramModel(pybind11::array unigrams, pybind11::array ngrams, pybind11::object codebook, pybind11::array words,
             int64_t order, int64_t bos, int64_t eos, bool characters, std::string space);

  // Throws TextError where a table holds what no language model has.
  void check_values() const;

  const NGramTables& tables() const { return tables_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  pybind11::tuple arrays_;
  NGramTables tables_{};
  Tokenizer tokenizer_;
};

// Adds classes and functions of language models to the module.
void bind_ngram(pybind11::module_& m);

}  // namespace asrkern
