// Makes the graphs of lexicons and hotwords for Python; asrkern/decoder/_context.py makes tensors of them.
#include <pybind11/numpy.h>

#include <optional>
#include <vector>

#include "csrc/decoder/modules.h"
#include "kernels/ctc/trie_builder.h"

namespace py = pybind11;

namespace asrkern {
namespace {

template <class T>
using Values = py::array_t<T, py::array::c_style | py::array::forcecast>;

Texts texts(const Values<uint32_t>& symbols, const Values<int64_t>& begin) {
  const int64_t count = begin.size() - 1;
  bool good = count >= 0 && begin.at(0) == 0 && begin.at(count) == symbols.size();
  for (int64_t i = 0; good && i < count; ++i) good = begin.at(i) <= begin.at(i + 1);
  if (!good) throw py::value_error("begin: expected the beginnings of all texts, then the number of symbols");
  return {symbols.data(), begin.data(), count};
}

void check_kinds(const Values<uint8_t>& kinds, const Texts& tokens) {
  if (kinds.size() != tokens.count)
    throw py::value_error("kinds: expected " + std::to_string(tokens.count) + " values, received " +
                          std::to_string(kinds.size()));
}

template <class T>
py::array_t<T> array(const std::vector<T>& values) {
  return py::array_t<T>(py::ssize_t(values.size()), values.data());
}

py::dict edges(const TokenEdges& edges) {
  py::dict result;
  result["edge_begin"] = array(edges.begin);
  result["edge_token"] = array(edges.token);
  result["edge_target"] = array(edges.target);
  result["edge_mask"] = array(edges.mask);
  return result;
}

py::dict lexicon_graph(const Values<uint32_t>& symbols, const Values<int64_t>& begin, const Values<int32_t>& word_of,
                       int64_t word_count, const Values<uint32_t>& token_symbols, const Values<int64_t>& token_begin,
                       const Values<uint8_t>& kinds) {
  const Texts words = texts(symbols, begin), tokens = texts(token_symbols, token_begin);
  check_kinds(kinds, tokens);
  bool good = word_of.size() == words.count;
  for (int64_t i = 0; good && i < words.count; ++i) good = word_of.at(i) >= 0 && word_of.at(i) < word_count;
  if (!good) throw py::value_error("word_of: expected the word of each text");
  LexiconGraph graph;
  {
    const int32_t* of = word_of.data();
    const uint8_t* kind = kinds.data();
    py::gil_scoped_release release;
    graph = build_lexicon(words, of, word_count, tokens, kind);
  }
  py::dict result = edges(graph.edges);
  result["word_begin"] = array(graph.word_begin);
  result["words"] = array(graph.words);
  result["parent"] = array(graph.parent);
  result["spelled"] = array(graph.spelled);
  return result;
}

py::array_t<float> best_word_below(const Values<int32_t>& parent, const Values<int32_t>& word_begin,
                                   const Values<int32_t>& words, const Values<float>& word_scores) {
  const int64_t nodes = parent.size();
  bool good =
      word_begin.size() == nodes + 1 && nodes > 0 && word_begin.at(0) == 0 && word_begin.at(nodes) == words.size();
  for (int64_t i = 0; good && i < nodes; ++i)
    good = parent.at(i) < i && parent.at(i) >= -1 && word_begin.at(i) <= word_begin.at(i + 1);
  for (int64_t i = 0; good && i < words.size(); ++i) good = words.at(i) >= 0 && words.at(i) < word_scores.size();
  if (!good) throw py::value_error("parent, word_begin, words: expected those of a lexicon");
  return array(best_below(parent.data(), word_begin.data(), words.data(), nodes, word_scores.data()));
}

std::unique_ptr<HotwordBuilder> hotword_builder(const Values<uint32_t>& token_symbols,
                                                const Values<int64_t>& token_begin, const Values<uint8_t>& kinds) {
  const Texts tokens = texts(token_symbols, token_begin);
  check_kinds(kinds, tokens);
  return std::make_unique<HotwordBuilder>(tokens, kinds.data());
}

// In the order of HotwordArrays.
py::tuple build_hotwords(const HotwordBuilder& builder, const Values<uint32_t>& symbols, const Values<int64_t>& begin,
                         const Values<float>& weights) {
  const Texts phrases = texts(symbols, begin);
  if (weights.size() != phrases.count) throw py::value_error("weights: expected one for each phrase");
  const HotwordGraph graph = builder.build(phrases, weights.data());
  return py::make_tuple(array(graph.edges.begin), array(graph.edges.token), array(graph.edges.target),
                        array(graph.edges.mask), array(graph.credit), array(graph.completed), array(graph.reach));
}

}  // namespace

void bind_tries(py::module_& m) {
  m.def("lexicon_graph", &lexicon_graph, "The edges and words of a lexicon; see kernels/ctc/trie_builder.h.");
  m.def("best_word_below", &best_word_below, "The best score of the words at and below each node of a lexicon.");
  py::class_<HotwordBuilder>(m, "HotwordBuilder", "Builds automata of phrases; see kernels/ctc/trie_builder.h.")
      .def(py::init(&hotword_builder))
      .def("build", &build_hotwords);
}

}  // namespace asrkern
