// What a search has found, as Python objects. There a loop over tokens takes as long as the search.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "kernels/ctc/ctc_ending.h"

namespace asrkern {

// What tokens stand for, and the way from tokens to words.
class Labels {
 public:
  template <class T>
  using Array = pybind11::array_t<T, pybind11::array::c_style | pybind11::array::forcecast>;

  // word: the class of words, a NamedTuple (text, start, end, confidence); kinds, texts: [V], what each token does to
  // words and adds to its word; names: the lexicon's words; finish: None, or makes the text of a word of its tokens'
  // texts, joined.
  Labels(const pybind11::type& word, const Array<uint8_t>& kinds, pybind11::list texts, pybind11::list names,
         pybind11::object finish);

  // (tokens, first frames, words, the frame after the last token)
  pybind11::tuple read(const std::vector<CtcToken>& tokens) const;

  // The hypotheses of each row, as read() gives them, up to the first length below 0. lengths: [N, K]; tokens, words,
  // confidences: [N, K, T]; times: [N, K, T, 2], the first frame and the one after the last.
  pybind11::list read_rows(const Array<int32_t>& lengths, const Array<int32_t>& tokens, const Array<int32_t>& times,
                           const Array<int32_t>& words, const Array<float>& confidences) const;

 private:
  pybind11::object make_word(const std::vector<CtcToken>& tokens, size_t first, size_t last) const;

  pybind11::type word_;
  std::vector<uint8_t> kinds_;
  pybind11::list texts_, names_;
  pybind11::object finish_;
};

}  // namespace asrkern
