// Streaming beam search for Python; asrkern/decoder/beam.py is what people use.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <tuple>
#include <vector>

#include "csrc/decoder/modules.h"
#include "csrc/decoder/ngram_model.h"
#include "kernels/ctc/context_arrays.h"
#include "kernels/ctc/ctc_beam_stream.h"

namespace py = pybind11;

namespace asrkern {
namespace {

// Views of arrays that `kept` keeps alive.
class Keeper {
 public:
  template <class T>
  Array<T> view(const py::handle& value, const char* name) {
    if (!py::isinstance<py::array_t<T>>(value) ||
        !(py::reinterpret_borrow<py::array>(value).flags() & py::array::c_style))
      throw py::type_error(std::string(name) + ": expected a contiguous array of " +
                           py::str(py::dtype::of<T>()).cast<std::string>());
    const auto array = py::reinterpret_borrow<py::array>(value);
    kept_.append(array);
    digest_ = ngram_key(digest_, int32_t(array.size()));
    digest_ ^= murmur_hash(static_cast<const char*>(array.data()), size_t(array.nbytes()));
    return {static_cast<const T*>(array.data()), array.size()};
  }

  py::handle keep(const py::object& value) {
    kept_.append(value);
    return value;
  }

  // Of the arrays viewed so far.
  uint64_t digest() const { return digest_; }

 private:
  py::list kept_;
  uint64_t digest_ = 0;
};

// Tells language models apart by their words' scores and how many n-grams there is room for, not by the n-grams: those
// may be more than the memory holds.
uint64_t model_digest(const NGramTables& tables) {
  const uint64_t sizes[] = {tables.ngrams.size, tables.quantized.size};
  return murmur_hash(reinterpret_cast<const char*>(tables.unigrams), tables.vocabulary * sizeof(NGramEntry)) ^
         murmur_hash(reinterpret_cast<const char*>(sizes), sizeof sizes);
}

// A model and options; beams are apart from it.
class CtcBeamSearch {
 public:
  CtcBeamSearch(const py::array& token_kinds, const py::object& language_model, const py::object& lm_tokens,
                const py::sequence& lexicon, const py::sequence& hotwords, const py::object& texts, double alpha,
                double beta, std::optional<double> unk_score, double unknown_look_ahead, double begin_reach,
                int64_t blank, int64_t beam_width, int64_t nbest, int64_t top_tokens, double token_min_logp,
                double beam_prune_logp, double blank_penalty, bool log_add, bool check_normalized, int64_t history)
      : nbest_(int32_t(nbest)) {
    ContextArrays arrays{};
    arrays.token_kinds = keeper_.view<uint8_t>(token_kinds, "token_kinds");
    const auto list = [&](const py::sequence& values, const char* name, size_t size) {
      if (values.size() && values.size() != size)
        throw py::value_error(std::string(name) + ": expected " + std::to_string(size) + " arrays or none, received " +
                              std::to_string(values.size()));
      return values.size() > 0;
    };
    if (list(lexicon, "lexicon", 9)) {
      const auto ints = [&](size_t i) { return keeper_.view<int32_t>(lexicon[i], "lexicon"); };
      const auto longs = [&](size_t i) { return keeper_.view<int64_t>(lexicon[i], "lexicon"); };
      const auto floats = [&](size_t i) { return keeper_.view<float>(lexicon[i], "lexicon"); };
      arrays.lexicon = {ints(0), ints(1), ints(2), ints(4), ints(5), ints(6), longs(3), floats(7), floats(8)};
    }
    if (list(hotwords, "hotwords", 7)) {
      const auto ints = [&](size_t i) { return keeper_.view<int32_t>(hotwords[i], "hotwords"); };
      const auto longs = [&](size_t i) { return keeper_.view<int64_t>(hotwords[i], "hotwords"); };
      const auto floats = [&](size_t i) { return keeper_.view<float>(hotwords[i], "hotwords"); };
      arrays.hotwords = {ints(0), ints(1), ints(2), longs(3), floats(4), floats(5), floats(6)};
    }
    if (!lm_tokens.is_none()) arrays.lm_tokens = keeper_.view<int32_t>(lm_tokens, "lm_tokens");
    if (!texts.is_none()) arrays.texts = keeper_.view<int64_t>(texts, "texts");
    arrays.alpha = alpha;
    arrays.beta = beta;
    arrays.allow_unknown = unk_score.has_value();
    arrays.unk_score = unk_score.value_or(0);
    arrays.unknown_look_ahead = unknown_look_ahead;
    arrays.begin_reach = begin_reach;
    const auto int32 = [](int64_t value) { return int32_t(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX)); };
    options_.row = {int32_t(token_kinds.size()), int32(blank),         int32(top_tokens),
                    float(token_min_logp),       float(blank_penalty), check_normalized};
    options_.beam_width = int32(beam_width);
    options_.beam_prune_logp = float(beam_prune_logp);
    options_.add = log_add;
    options_.history = int32(history);
    check_options(options_, nbest);
    const NGramTables* tables = nullptr;
    if (!language_model.is_none()) tables = &keeper_.keep(language_model).cast<const NGramModel&>().tables();
    model_ = make_context(arrays, tables, options_.row.vocabulary);
    const double numbers[] = {alpha,
                              beta,
                              unk_score.value_or(-INFINITY),
                              unknown_look_ahead,
                              begin_reach,
                              double(blank),
                              double(beam_width),
                              double(top_tokens),
                              token_min_logp,
                              beam_prune_logp,
                              blank_penalty,
                              double(log_add),
                              double(history),
                              double(check_normalized),
                              tables ? double(tables->order) : 0};
    digest_ = keeper_.digest() ^ murmur_hash(reinterpret_cast<const char*>(numbers), sizeof numbers);
    if (tables) digest_ ^= model_digest(*tables);
  }

  std::unique_ptr<CtcBeamStream> start() const { return std::make_unique<CtcBeamStream>(model_, options_, digest_); }

  // (error, frame of the chunk where it is). Frames before it are taken.
  std::pair<int32_t, int64_t> step(CtcBeamStream& stream,
                                   const py::array_t<float, py::array::c_style | py::array::forcecast>& chunk) const {
    if (chunk.ndim() != 2 || chunk.shape(1) != options_.row.vocabulary)
      throw py::value_error("log_probs: expected shape [frames, " + std::to_string(options_.row.vocabulary) + "]");
    const int64_t frames = chunk.shape(0);
    const float* values = chunk.data();
    py::gil_scoped_release release;
    const auto lock = stream.lock();
    restore(stream);
    for (int64_t t = 0; t < frames; ++t) {
      const CtcError error = stream.step(model_, options_, values + t * options_.row.vocabulary);
      if (error != kCtcOk) return {error, t};
    }
    return {kCtcOk, frames};
  }

  // A tuple for each hypothesis of the whole: score, am_score, then the columns of its tokens.
  py::list results(CtcBeamStream& stream) const {
    std::vector<CtcHypothesis> found;
    {
      py::gil_scoped_release release;
      const auto lock = stream.lock();
      restore(stream);
      found = stream.results(model_, options_, nbest_);
    }
    py::list result;
    for (const CtcHypothesis& hypothesis : found) result.append(tuple(hypothesis));
    return result;
  }

  // (columns of the tokens of complete words, from word `after` on; the best hypothesis behind the last complete word;
  // the index of its first token; complete words; stable tokens)
  py::tuple partial(CtcBeamStream& stream, int32_t after) const {
    CtcPartial found;
    std::vector<CtcToken> tokens;
    {
      py::gil_scoped_release release;
      const auto lock = stream.lock();
      restore(stream);
      found = stream.partial(model_, options_);
      tokens = stream.committed(stream.word_begin(after), found.first);
    }
    if (after < 0 || after > found.words)
      throw py::value_error("after: expected 0 to " + std::to_string(found.words) + " stable words, received " +
                            std::to_string(after));
    return py::make_tuple(columns(tokens), tuple(found.best), found.first, found.words, found.stable);
  }

  // Columns of the first `end` tokens, none of which is beyond the words that are complete.
  py::tuple committed(CtcBeamStream& stream, int32_t end) const {
    std::vector<CtcToken> tokens;
    {
      const auto lock = stream.lock();
      restore(stream);
      tokens = stream.committed(0, end);
    }
    return columns(tokens);
  }

 private:
  // Of tokens: token, start, end, word, confidence.
  static py::tuple columns(const std::vector<CtcToken>& tokens) {
    const auto column = [&](auto CtcToken::* field) {
      using T = std::decay_t<decltype(std::declval<CtcToken>().*field)>;
      std::vector<T> values;
      values.reserve(tokens.size());
      for (const CtcToken& token : tokens) values.push_back(token.*field);
      return values;
    };
    return py::make_tuple(column(&CtcToken::token), column(&CtcToken::start), column(&CtcToken::end),
                          column(&CtcToken::word), column(&CtcToken::confidence));
  }

  static py::tuple tuple(const CtcHypothesis& hypothesis) {
    return py::make_tuple(hypothesis.score, hypothesis.am_score) + columns(hypothesis.tokens);
  }

  void restore(CtcBeamStream& stream) const {
    if (stream.search() != digest_ || !stream.restore(model_, options_))
      throw py::value_error("state: expected one that this decoder, or an equal one, has started");
  }

  Keeper keeper_;
  ContextModel model_{};
  CtcBeamOptions options_{};
  int32_t nbest_;
  uint64_t digest_ = 0;  // of all that a state depends on; see model_digest
};

// The hash of each text of code points, [texts, 2]; see kernels/ctc/text_hash.h. begin: [texts + 1].
py::array_t<int64_t> text_hashes(const py::array_t<uint32_t, py::array::c_style | py::array::forcecast>& symbols,
                                 const py::array_t<int64_t, py::array::c_style | py::array::forcecast>& begin) {
  py::array_t<int64_t> result({std::max<py::ssize_t>(begin.size() - 1, 0), py::ssize_t(2)});
  TextHash* hashes = reinterpret_cast<TextHash*>(result.mutable_data());
  for (py::ssize_t i = 0; i + 1 < begin.size(); ++i) {
    if (begin.at(i) < 0 || begin.at(i) > begin.at(i + 1) || begin.at(i + 1) > symbols.size())
      throw py::value_error("begin: expected the beginnings of all texts, then the number of symbols");
    hashes[i] = kNoText;
    for (int64_t k = begin.at(i); k < begin.at(i + 1); ++k)
      hashes[i] = joined(hashes[i], hash_of_character(symbols.at(k)));
  }
  return result;
}

// A method of streams, while no other thread is in one of them. Those that hold the lock never wait for the GIL.
template <class Result>
auto locked(Result (CtcBeamStream::*method)() const) {
  return [method](const CtcBeamStream& stream) {
    const auto lock = stream.lock();
    return (stream.*method)();
  };
}

}  // namespace

void bind_ctc_beam(py::module_& m) {
  py::class_<CtcBeamStream>(m, "CtcBeamState", "A beam search in progress; made by CTCBeamDecoder.start.")
      .def_property_readonly("frames", locked(&CtcBeamStream::frames), "Frames taken so far.")
      .def_property_readonly("stable_tokens", locked(&CtcBeamStream::stable_tokens),
                             "How many tokens all prefixes of the beam begin with.")
      .def_property_readonly("tree_bytes", locked(&CtcBeamStream::tree_bytes),
                             "Memory of what the prefixes of the beam differ in, in bytes.")
      .def(py::pickle(
          [](CtcBeamStream& stream) {
            const auto lock = stream.lock();
            return py::bytes(stream.save());
          },
          [](const py::bytes& bytes) { return std::make_unique<CtcBeamStream>(bytes); }));
  py::class_<CtcBeamSearch>(m, "CtcBeamSearch", "A model and options of a beam search; see kernels/ctc/ctc_beam.h.")
      .def(py::init<const py::array&, const py::object&, const py::object&, const py::sequence&, const py::sequence&,
                    const py::object&, double, double, std::optional<double>, double, double, int64_t, int64_t, int64_t,
                    int64_t, double, double, double, bool, bool, int64_t>(),
           py::kw_only(), py::arg("token_kinds"), py::arg("language_model"), py::arg("lm_tokens"), py::arg("lexicon"),
           py::arg("hotwords"), py::arg("texts"), py::arg("alpha"), py::arg("beta"), py::arg("unk_score"),
           py::arg("unknown_look_ahead"), py::arg("begin_reach"), py::arg("blank"), py::arg("beam_width"),
           py::arg("nbest"), py::arg("top_tokens"), py::arg("token_min_logp"), py::arg("beam_prune_logp"),
           py::arg("blank_penalty"), py::arg("log_add"), py::arg("check_normalized"), py::arg("history"))
      .def("start", &CtcBeamSearch::start)
      .def("step", &CtcBeamSearch::step)
      .def("results", &CtcBeamSearch::results)
      .def("partial", &CtcBeamSearch::partial)
      .def("committed", &CtcBeamSearch::committed);
  m.def("text_hashes", &text_hashes);
}

}  // namespace asrkern
