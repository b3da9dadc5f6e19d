// Beam search of streams and batches for Python; asrkern/decoder/beam.py is what people use.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <vector>

#include "csrc/decoder/hypotheses.h"
#include "csrc/decoder/modules.h"
#include "csrc/decoder/ngram_model.h"
#include "csrc/decoder/started_threads.h"
#include "kernels/common/cpu/share_out.h"
#include "kernels/ctc/context_arrays.h"
#include "kernels/ctc/ctc_beam_stream.h"
#include "kernels/ctc/ctc_options.h"

namespace py = pybind11;

namespace asrkern {
namespace {

// Copies of arrays that a search points into: they are checked once, and what Python holds may be edited afterwards.
class KeptArrays {
 public:
  template <class T>
  void view(const py::handle& value, const char* name, Array<T>& view) {
    if (!py::isinstance<py::array_t<T>>(value) ||
        !(py::reinterpret_borrow<py::array>(value).flags() & py::array::c_style))
      throw py::type_error(std::string(name) + ": expected a contiguous array of " +
                           py::str(py::dtype::of<T>()).cast<std::string>());
    const py::array array = value.attr("copy")();
    kept_.append(array);
    digest_ = ngram_key(digest_, int32_t(array.size()));
    digest_ ^= murmur_hash(static_cast<const char*>(array.data()), size_t(array.nbytes()));
    view = {static_cast<const T*>(array.data()), array.size()};
  }

  py::handle keep(const py::object& value) {
    kept_.append(value);
    return value;
  }

  // A hash of the arrays viewed so far.
  uint64_t digest() const { return digest_; }

 private:
  py::list kept_;
  uint64_t digest_ = 0;
};

// Fills a struct that has each(f) from a dict, by the names of its fields.
template <class Values>
Values read(const py::dict& given) {
  Values values{};
  values.each([&](const char* name, auto& value) {
    try {
      value = given[name].template cast<std::decay_t<decltype(value)>>();
    } catch (const py::cast_error&) {
      throw py::type_error(std::string(name) + ": expected a number, received " +
                           py::repr(given[name]).cast<std::string>());
    }
  });
  return values;
}

// A hash that tells language models apart: of their words' scores and of the number of slots, but not of their n-grams,
// which may be more than the memory holds.
uint64_t model_digest(const NGramTables& tables) {
  const uint64_t sizes[] = {tables.ngrams.size, tables.quantized.size, tables.trie ? tables.trie->ngrams() : 0};
  return murmur_hash(reinterpret_cast<const char*>(tables.unigrams), tables.vocabulary * sizeof(NGramEntry)) ^
         murmur_hash(reinterpret_cast<const char*>(sizes), sizeof sizes);
}

// A model and options. Beams are kept apart from it, in CtcBeamStream.
class CtcBeamSearch {
 public:
  // context: asrkern.ops.CTCContext as a dict, with arrays for tensors and without hotwords. options: the fields of
  // CtcOptions. labels: Labels.
  CtcBeamSearch(const py::dict& context, const py::object& language_model, const py::dict& options,
                const py::object& labels)
      : labels_(kept_.keep(labels).cast<const Labels*>()) {
    ContextArrays arrays{};
    const auto view = [this](const py::handle& value, const char* name, auto& array) {
      kept_.view(value, name, array);
    };
    view(context["token_kinds"], "token_kinds", arrays.token_kinds);
    view_each(arrays.lexicon, py::sequence(context["lexicon"]), "lexicon", view);
    if (!context["lm_tokens"].is_none()) view(context["lm_tokens"], "lm_tokens", arrays.lm_tokens);
    if (!context["texts"].is_none()) view(context["texts"], "texts", arrays.texts);
    arrays.numbers = read<ContextNumbers>(context);
    const NGramTables* tables = nullptr;
    if (!language_model.is_none()) tables = &kept_.keep(language_model).cast<const NGramModel&>().tables();
    model_ = make_context(arrays, tables, int32_t(std::min<int64_t>(arrays.token_kinds.size, INT32_MAX)));
    begin_reach_ = model_.begin_reach;
    const uint64_t of_numbers = digest(arrays.numbers) ^ ngram_key(tables ? tables->order : 0, 0);
    base_digest_ = kept_.digest() ^ (tables ? model_digest(*tables) : 0) ^ of_numbers;
    set(options, py::list());
  }

  // This search with other hotwords, the arrays of asrkern.ops.CTCContext.hotwords, and options. It shares everything
  // else, so it is made quickly.
  std::unique_ptr<CtcBeamSearch> replace(const py::dict& options, const py::sequence& hotwords) const {
    auto other = std::make_unique<CtcBeamSearch>(*this);
    other->set(options, hotwords);
    return other;
  }

  // The n-best of each row of log_probs, [N, T, V], up to its length; lengths: [N] int64. searches: each row's. Returns
  // for each row its hypotheses, as results() does, or (error, frame).
  static py::list search_rows(const py::sequence& searches,
                              const py::array_t<float, py::array::c_style | py::array::forcecast>& log_probs,
                              const py::array_t<int64_t, py::array::c_style | py::array::forcecast>& lengths,
                              int threads) {
    const py::tuple held(searches);
    const std::vector<const CtcBeamSearch*> each = check_rows(held, log_probs, lengths);
    const int64_t rows = log_probs.shape(0), frames = log_probs.shape(1), vocabulary = log_probs.shape(2);
    const float* values = log_probs.data();
    const int64_t* counts = lengths.data();
    std::vector<CtcUtterance> found(each.size());
    {
      const py::gil_scoped_release release;
      cpu::share_out(started_threads(threads), rows, threads, [&](int64_t row) {
        const CtcBeamSearch& search = *each[size_t(row)];
        found[size_t(row)] = search_utterance(search.model_, search.options_, search.nbest_,
                                              values + row * frames * vocabulary, counts[row]);
      });
    }
    py::list result;
    for (size_t row = 0; row < found.size(); ++row) {
      if (found[row].error == kCtcOk)
        result.append(each[row]->read_each(found[row].hypotheses));
      else
        result.append(py::make_tuple(int32_t(found[row].error), found[row].frame));
    }
    return result;
  }

  // before: what the language model keeps of the words before; null: the sentence begins.
  std::unique_ptr<CtcBeamStream> start(const NGramState* before) const {
    return std::make_unique<CtcBeamStream>(model_, options_, digest_, before);
  }

  // Returns (error, frame of the chunk where it is). The frames before it are taken.
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

  // The n-best of the whole stream. Each is a tuple (score, am_score, what Labels::read gives). sentence: the language
  // model's sentence ends, too.
  py::list results(CtcBeamStream& stream, bool sentence) const {
    std::vector<CtcHypothesis> found;
    {
      py::gil_scoped_release release;
      const auto lock = stream.lock();
      restore(stream);
      found = stream.results(model_, options_, nbest_, sentence);
    }
    return read_each(found);
  }

  // Returns (columns of the tokens of complete words from word `after` on; the best hypothesis behind the last complete
  // word; the index of its first token; how many words are complete; how many tokens are stable).
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

  // Columns of the first `end` tokens, all of which are in complete words.
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
  static std::vector<const CtcBeamSearch*> check_rows(const py::tuple& searches, const py::array& log_probs,
                                                      const py::array& lengths) {
    if (log_probs.ndim() != 3) throw py::value_error("log_probs: expected shape [N, T, V]");
    const py::ssize_t rows = log_probs.shape(0), frames = log_probs.shape(1), vocabulary = log_probs.shape(2);
    if (py::ssize_t(searches.size()) != rows)
      throw py::value_error("searches: expected one for each of " + std::to_string(rows) + " rows, received " +
                            std::to_string(searches.size()));
    if (lengths.ndim() != 1 || lengths.shape(0) != rows)
      throw py::value_error("lengths: expected one for each of " + std::to_string(rows) + " rows");
    std::vector<const CtcBeamSearch*> each;
    for (py::ssize_t row = 0; row < rows; ++row) {
      each.push_back(&searches[size_t(row)].cast<const CtcBeamSearch&>());
      if (each.back()->options_.row.vocabulary != vocabulary)
        throw py::value_error("log_probs: expected " + std::to_string(each.back()->options_.row.vocabulary) +
                              " values a frame, received " + std::to_string(vocabulary));
      const int64_t length = static_cast<const int64_t*>(lengths.data())[row];
      if (length < 0 || length > frames)
        throw py::value_error("lengths: expected values between 0 and the " + std::to_string(frames) +
                              " frames of the input, received " + std::to_string(length) + " at row " +
                              std::to_string(row));
    }
    return each;
  }

  py::list read_each(const std::vector<CtcHypothesis>& hypotheses) const {
    py::list result;
    for (const CtcHypothesis& found : hypotheses)
      result.append(py::make_tuple(found.score, found.am_score, labels_->read(found.tokens)));
    return result;
  }

  // Tokens as columns: token, start, end, word, confidence.
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

  // A hash of the numbers of a struct that has each(f).
  template <class Numbers>
  static uint64_t digest(Numbers given) {
    std::vector<double> numbers;
    given.each([&](const char*, auto value) {
      if constexpr (std::is_same_v<decltype(value), std::optional<double>>)
        numbers.push_back(value.value_or(-INFINITY));
      else
        numbers.push_back(double(value));
    });
    return murmur_hash(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double));
  }

  // Takes options and hotwords, and the digest of all.
  void set(const py::dict& options, const py::sequence& hotwords) {
    CtcOptions given = read<CtcOptions>(options);
    options_ = beam_options(given, model_.vocabulary);
    nbest_ = int32_t(std::min<int64_t>(given.nbest, INT32_MAX));
    kept_hotwords_ = KeptArrays();
    HotwordArrays arrays{};
    const auto view = [this](const py::handle& value, const char* name, auto& array) {
      kept_hotwords_.view(value, name, array);
    };
    view_each(arrays, hotwords, "hotwords", view);
    model_.hotwords = arrays.edge_begin.size ? make_hotwords(arrays, model_.vocabulary) : Hotwords{};
    model_.begin_reach = begin_reach_;
    if (model_.hotwords.nodes) model_.begin_reach += hotword_begin_reach(model_.hotwords, model_.token_kinds);
    given.nbest = 1;  // a state does not depend on it
    digest_ = base_digest_ ^ kept_hotwords_.digest() ^ digest(given);
  }

  void restore(CtcBeamStream& stream) const {
    if (stream.search() != digest_ || !stream.restore(model_, options_))
      throw py::value_error("state: expected one that this decoder, or an equal one, has started");
  }

  KeptArrays kept_, kept_hotwords_;
  ContextModel model_{};
  const Labels* labels_;
  float begin_reach_ = 0;     // without hotwords
  uint64_t base_digest_ = 0;  // of all but hotwords and options
  CtcBeamOptions options_{};
  int32_t nbest_ = 0;
  uint64_t digest_ = 0;  // a hash of all that a state depends on; see model_digest
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

// Wraps a method of streams so that only one thread at a time is in a stream. Who holds the lock never waits for the
// GIL.
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
      .def(py::init<const py::dict&, const py::object&, const py::dict&, const py::object&>(), py::kw_only(),
           py::arg("context"), py::arg("language_model"), py::arg("options"), py::arg("labels"))
      .def("replace", &CtcBeamSearch::replace, py::kw_only(), py::arg("options"), py::arg("hotwords"))
      .def("start", &CtcBeamSearch::start, py::arg("before") = nullptr)
      .def("step", &CtcBeamSearch::step)
      .def("results", &CtcBeamSearch::results, py::arg("stream"), py::arg("sentence") = true)
      .def("partial", &CtcBeamSearch::partial)
      .def("committed", &CtcBeamSearch::committed);
  m.def("search_rows", &CtcBeamSearch::search_rows, py::arg("searches"), py::arg("log_probs"), py::arg("lengths"),
        py::arg("threads"));
  m.def("text_hashes", &text_hashes);
}

}  // namespace asrkern
