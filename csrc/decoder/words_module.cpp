// The words of hypotheses for Python. There a loop over tokens takes as long as the search.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "csrc/decoder/modules.h"

namespace py = pybind11;

namespace asrkern {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// kinds of tokens in asrkern/decoder/_tokens.py
constexpr uint8_t kInsideWord = 0, kEndsWord = 1;

// What tokens stand for. word: the class of words, a NamedTuple (text, start, end, confidence); kinds, texts: [V], what
// each token does to words and adds to its word; names: the lexicon's words.
struct Labels {
  py::type word;
  Array<uint8_t> kinds;
  py::list texts, names;
};

// The columns of a hypothesis' tokens, `length` of each; times: [length, 2], the first frame and the one after the
// last.
struct Columns {
  int64_t length;
  const int32_t *tokens, *times, *words;
  const float* confidences;
};

void append(const py::list& list, PyObject* stolen) {
  const auto value = py::reinterpret_steal<py::object>(stolen);
  if (!value || PyList_Append(list.ptr(), value.ptr()) != 0) throw py::error_already_set();
}

// The word of tokens first to last.
py::object make_word(const Labels& labels, const Columns& of, int64_t first, int64_t last) {
  py::object text;
  if (const int32_t word = of.words[last]; word >= 0) {
    if (word >= int64_t(labels.names.size()))
      throw py::value_error("words: expected a word of the lexicon, received " + std::to_string(word));
    text = labels.names[word];
  } else {
    py::list parts;
    for (int64_t i = first; i <= last; ++i) parts.append(labels.texts[of.tokens[i]]);
    text = py::str("").attr("join")(parts);
  }
  const py::tuple values =
      py::make_tuple(text, of.times[2 * first], of.times[2 * last + 1], double(of.confidences[last]));
  // What tuple.__new__ does, without the call in Python that a NamedTuple's own would be.
  const py::tuple arguments = py::make_tuple(values);
  auto* made = PyTuple_Type.tp_new(reinterpret_cast<PyTypeObject*>(labels.word.ptr()), arguments.ptr(), nullptr);
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

// (tokens, first frames, words, the frame after the last token)
py::tuple read(const Labels& labels, const Columns& of) {
  py::list tokens, starts, words;
  const uint8_t* kinds = labels.kinds.data();
  int64_t first = -1;
  for (int64_t i = 0; i < of.length; ++i) {
    const int32_t token = of.tokens[i];
    if (token < 0 || token >= labels.kinds.size())
      throw py::value_error("tokens: expected one of " + std::to_string(labels.kinds.size()) + ", received " +
                            std::to_string(token));
    append(tokens, PyLong_FromLong(token));
    append(starts, PyLong_FromLong(of.times[2 * i]));
    if (kinds[token] != kInsideWord && first >= 0) {
      words.append(make_word(labels, of, first, i - 1));
      first = -1;
    }
    if (kinds[token] != kEndsWord && first < 0) first = i;
  }
  if (first >= 0) words.append(make_word(labels, of, first, of.length - 1));
  return py::make_tuple(tokens, starts, words, of.length ? of.times[2 * of.length - 1] : 0);
}

void check_shape(const char* name, const py::array& array, const py::array& expected, int64_t times) {
  const int64_t dims = times ? 4 : 3;
  bool fits = array.ndim() == dims && expected.ndim() == 3 && (!times || array.shape(3) == times);
  for (int64_t i = 0; fits && i < 3; ++i) fits = array.shape(i) == expected.shape(i);
  if (!fits) throw py::value_error(std::string(name) + ": expected the shape of tokens, received another");
}

// The hypotheses of each row, as read() gives them, up to the first length below 0. lengths: [N, K]; tokens, words,
// confidences: [N, K, T]; times: [N, K, T, 2].
py::list read_hypotheses(const py::type& word, const Array<uint8_t>& kinds, const py::list& texts,
                         const py::list& names, const Array<int32_t>& lengths, const Array<int32_t>& tokens,
                         const Array<int32_t>& times, const Array<int32_t>& words, const Array<float>& confidences) {
  if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(word.ptr()), &PyTuple_Type))
    throw py::type_error("word: expected a class of tuples");
  if (kinds.ndim() != 1 || int64_t(texts.size()) != kinds.size())
    throw py::value_error("kinds: expected one for each of texts");
  check_shape("times", times, tokens, 2);
  check_shape("words", words, tokens, 0);
  check_shape("confidences", confidences, tokens, 0);
  if (lengths.ndim() != 2 || lengths.shape(0) != tokens.shape(0) || lengths.shape(1) != tokens.shape(1))
    throw py::value_error("lengths: expected one for each hypothesis of tokens");
  const Labels labels{word, kinds, texts, names};
  const int64_t rows = tokens.shape(0), nbest = tokens.shape(1), room = tokens.shape(2);
  py::list result;
  for (int64_t n = 0; n < rows; ++n) {
    py::list row;
    for (int64_t k = 0; k < nbest; ++k) {
      const int64_t length = lengths.at(n, k), at = (n * nbest + k) * room;
      if (length < 0) break;
      if (length > room)
        throw py::value_error("lengths: expected at most " + std::to_string(room) + ", received " +
                              std::to_string(length));
      row.append(read(labels,
                      {length, tokens.data() + at, times.data() + 2 * at, words.data() + at, confidences.data() + at}));
    }
    result.append(row);
  }
  return result;
}

}  // namespace

void bind_words(py::module_& m) { m.def("read_hypotheses", &read_hypotheses); }

}  // namespace asrkern
