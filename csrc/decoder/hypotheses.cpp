#include "csrc/decoder/hypotheses.h"

#include <string>
#include <utility>

#include "csrc/decoder/modules.h"
#include "kernels/ctc/ctc_context.h"

namespace py = pybind11;

namespace asrkern {
namespace {

void append(const py::list& list, PyObject* stolen) {
  const auto value = py::reinterpret_steal<py::object>(stolen);
  if (!value || PyList_Append(list.ptr(), value.ptr()) != 0) throw py::error_already_set();
}

void check_shape(const char* name, const py::array& array, const py::array& expected, int64_t times) {
  const int64_t dims = times ? 4 : 3;
  bool fits = array.ndim() == dims && expected.ndim() == 3 && (!times || array.shape(3) == times);
  for (int64_t i = 0; fits && i < 3; ++i) fits = array.shape(i) == expected.shape(i);
  if (!fits) throw py::value_error(std::string(name) + ": expected the shape of tokens, received another");
}

}  // namespace

Labels::Labels(const py::type& word, const Array<uint8_t>& kinds, py::list texts, py::list names, py::object finish)
    : word_(word),
      texts_(py::list(texts.attr("copy")())),
      names_(py::list(names.attr("copy")())),
      finish_(std::move(finish)) {
  if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(word.ptr()), &PyTuple_Type))
    throw py::type_error("word: expected a class of tuples");
  if (kinds.ndim() != 1 || int64_t(texts.size()) != kinds.size())
    throw py::value_error("kinds: expected one for each of texts");
  kinds_.assign(kinds.data(), kinds.data() + kinds.size());
}

// The word of tokens first to last.
py::object Labels::make_word(const std::vector<CtcToken>& tokens, size_t first, size_t last) const {
  py::object text;
  if (const int32_t word = tokens[last].word; word >= 0) {
    if (size_t(word) >= names_.size())
      throw py::value_error("words: expected a word of the lexicon, received " + std::to_string(word));
    text = names_[size_t(word)];
  } else {
    py::list parts;
    for (size_t i = first; i <= last; ++i) parts.append(texts_[size_t(tokens[i].token)]);
    text = py::str("").attr("join")(parts);
    if (!finish_.is_none()) text = finish_(text);
  }
  const py::tuple values = py::make_tuple(text, tokens[first].start, tokens[last].end, double(tokens[last].confidence));
  // What tuple.__new__ does, without the call in Python that a NamedTuple's own would be.
  const py::tuple arguments = py::make_tuple(values);
  auto* made = PyTuple_Type.tp_new(reinterpret_cast<PyTypeObject*>(word_.ptr()), arguments.ptr(), nullptr);
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

py::tuple Labels::read(const std::vector<CtcToken>& tokens) const {
  constexpr size_t kNone = SIZE_MAX;
  py::list indices, starts, words;
  size_t first = kNone;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int32_t token = tokens[i].token;
    if (token < 0 || size_t(token) >= kinds_.size())
      throw py::value_error("tokens: expected one of " + std::to_string(kinds_.size()) + ", received " +
                            std::to_string(token));
    append(indices, PyLong_FromLong(token));
    append(starts, PyLong_FromLong(tokens[i].start));
    if (kinds_[size_t(token)] != kInsideWord && first != kNone) {
      words.append(make_word(tokens, first, i - 1));
      first = kNone;
    }
    if (kinds_[size_t(token)] != kEndsWord && first == kNone) first = i;
  }
  if (first != kNone) words.append(make_word(tokens, first, tokens.size() - 1));
  return py::make_tuple(indices, starts, words, tokens.empty() ? 0 : tokens.back().end);
}

py::list Labels::read_rows(const Array<int32_t>& lengths, const Array<int32_t>& tokens, const Array<int32_t>& times,
                           const Array<int32_t>& words, const Array<float>& confidences) const {
  check_shape("times", times, tokens, 2);
  check_shape("words", words, tokens, 0);
  check_shape("confidences", confidences, tokens, 0);
  if (lengths.ndim() != 2 || lengths.shape(0) != tokens.shape(0) || lengths.shape(1) != tokens.shape(1))
    throw py::value_error("lengths: expected one for each hypothesis of tokens");
  const int64_t rows = tokens.shape(0), nbest = tokens.shape(1), room = tokens.shape(2);
  py::list result;
  std::vector<CtcToken> columns;
  for (int64_t n = 0; n < rows; ++n) {
    py::list row;
    for (int64_t k = 0; k < nbest; ++k) {
      const int64_t length = lengths.at(n, k), at = (n * nbest + k) * room;
      if (length < 0) break;
      if (length > room)
        throw py::value_error("lengths: expected at most " + std::to_string(room) + ", received " +
                              std::to_string(length));
      columns.clear();
      for (int64_t i = at; i < at + length; ++i)
        columns.push_back(
            {tokens.data()[i], times.data()[2 * i], times.data()[2 * i + 1], words.data()[i], confidences.data()[i]});
      row.append(read(columns));
    }
    result.append(row);
  }
  return result;
}

void bind_hypotheses(py::module_& m) {
  py::class_<Labels>(m, "Labels", "What tokens stand for.")
      .def(py::init<const py::type&, const Labels::Array<uint8_t>&, py::list, py::list, py::object>(), py::arg("word"),
           py::arg("kinds"), py::arg("texts"), py::arg("names"), py::arg("finish") = py::none())
      .def("read_rows", &Labels::read_rows, py::arg("lengths"), py::arg("tokens"), py::arg("times"), py::arg("words"),
           py::arg("confidences"));
}

}  // namespace asrkern
