// Language models for Python; asrkern/decoder/ngram_lm.py is what people use.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "csrc/decoder/ngram_model.h"
#include "kernels/lm/arpa.h"
#include "kernels/lm/kenlm_trie.h"
#include "kernels/lm/kneser_ney.h"
#include "kernels/lm/ngram_builder.h"
#include "kernels/lm/ngram_check.h"
#include "kernels/lm/ngram_query.h"
#include "kernels/lm/text_error.h"

namespace py = pybind11;

namespace asrkern {
namespace {

using Release = py::call_guard<py::gil_scoped_release>;
template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// An array in numpy's own memory, which numpy asks the system to back with large pages.
template <class T>
py::array_t<T> zeros(std::vector<py::ssize_t> shape) {
  return py::module_::import("numpy").attr("zeros")(py::tuple(py::cast(std::move(shape))), py::dtype::of<T>());
}

template <class T>
py::array_t<T> copied(const void* values, std::vector<py::ssize_t> shape) {
  py::array_t<T> array = zeros<T>(std::move(shape));
  if (array.nbytes()) memcpy(array.mutable_data(), values, size_t(array.nbytes()));
  return array;
}

// A hash table's slots, all zero. They begin at a page's boundary and are in large pages where the system has them:
// searches read everywhere in a table, and in small pages most would wait for the address as well. They are mapped, not
// taken from the heap, whose pages stay small once they are.
py::array_t<int64_t> empty_slots(std::vector<py::ssize_t> shape) {
  constexpr size_t kLarge = size_t(2) << 20;
  size_t bytes = sizeof(int64_t);
  for (const py::ssize_t size : shape) bytes *= size_t(size);
  const bool large = bytes >= kLarge;
  if (large) bytes = (bytes + kLarge - 1) / kLarge * kLarge;
  const size_t mapped = bytes + (large ? kLarge : 0);  // what lies before the boundary is never touched
  void* const memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  char* slots = static_cast<char*>(memory);
  if (large) {
    slots += -reinterpret_cast<uintptr_t>(slots) & (kLarge - 1);
#ifdef MADV_HUGEPAGE
    madvise(slots, bytes, MADV_HUGEPAGE);  // if this fails, pages stay small
#endif
  }
  struct Mapping {
    void* memory;
    size_t bytes;
  };
  const py::capsule owner(new Mapping{memory, mapped}, [](void* pointer) {
    const auto* mapping = static_cast<Mapping*>(pointer);
    munmap(mapping->memory, mapping->bytes);
    delete mapping;
  });
  return py::array_t<int64_t>(std::move(shape), reinterpret_cast<int64_t*>(slots), owner);
}

py::array_t<int64_t> finished(const HashBuilder& builder) {
  py::array_t<int64_t> table = empty_slots({py::ssize_t(builder.size()), 2});
  builder.write(reinterpret_cast<HashSlot*>(table.mutable_data()));
  return table;
}

template <class T>
const T* checked(const py::array& array, const char* name, std::vector<py::ssize_t> shape) {
  bool fits = py::isinstance<py::array_t<T>>(array) && array.ndim() == py::ssize_t(shape.size()) &&
              (array.flags() & py::array::c_style) && reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0;
  for (size_t i = 0; fits && i < shape.size(); ++i)
    fits = shape[i] < 0 ? array.shape(i) > 0 : array.shape(i) == shape[i];
  if (!fits)
    throw py::value_error(std::string(name) + ": expected a contiguous array of " +
                          py::str(py::dtype::of<T>()).cast<std::string>() + " and of the shape of a language model");
  return static_cast<const T*>(array.data());
}

py::dict finished(const NGramBuilder& builder) {
  py::dict tables;
  tables["unigrams"] = copied<float>(builder.unigrams().data(), {py::ssize_t(builder.unigrams().size()), 2});
  tables["ngrams"] = finished(builder.ngrams());
  tables["words"] = finished(builder.words());
  tables["strings"] = copied<uint8_t>(builder.strings().data(), {py::ssize_t(builder.strings().size())});
  return tables;
}

// Bytes of a file, and the shape of the trie in it; see KenlmTrie.
using FileBytes = py::array_t<uint8_t, py::array::c_style>;

KenlmTrie parsed(const FileBytes& file, const Array<int64_t>& shape) {
  return KenlmTrie({reinterpret_cast<const char*>(file.data()), size_t(file.size())},
                   {shape.data(), size_t(shape.size())});
}

// The tables of a trie of KenLM, and how many bytes of the file it takes. file: from its vocabulary on.
py::tuple read_kenlm_trie(const FileBytes& file, const Array<int64_t>& shape) {
  const KenlmTrie trie = parsed(file, shape);
  trie.check_words();
  py::array_t<float> unigrams = zeros<float>({py::ssize_t(trie.vocabulary()), 2});
  py::array_t<int64_t> ngrams = empty_slots({py::ssize_t(finished_size(trie.ngrams())), 2});
  py::array_t<int64_t> words = empty_slots({py::ssize_t(finished_size(trie.vocabulary() - 1)), 2});
  NGramEntry* const entries = reinterpret_cast<NGramEntry*>(unigrams.mutable_data());
  HashQueue<HashSlot> ngram_queue(reinterpret_cast<HashSlot*>(ngrams.mutable_data()), uint64_t(ngrams.shape(0)));
  HashQueue<HashSlot> word_queue(reinterpret_cast<HashSlot*>(words.mutable_data()), uint64_t(words.shape(0)));
  {
    py::gil_scoped_release release;
    for (uint32_t word = 1; word < trie.vocabulary(); ++word) {
      const uint64_t hash = trie.word_hash(word);
      word_queue.add(hash, {hash, word});
    }
    word_queue.finish();
    trie.read([&](int32_t order, const int32_t* ids, uint64_t key, NGramEntry entry) {
      if (order == 1) {
        entries[ids[0]] = entry;
        return;
      }
      HashSlot slot{key, 0};
      memcpy(&slot.payload, &entry, sizeof entry);
      ngram_queue.add(key, slot);
    });
    ngram_queue.finish();
  }
  py::dict tables;
  tables["unigrams"] = std::move(unigrams);
  tables["ngrams"] = std::move(ngrams);
  tables["words"] = std::move(words);
  return py::make_tuple(tables, trie.bytes());
}

// Log-probabilities and back-off weights without marks.
py::tuple unmarked(const NGramEntry* entries, py::ssize_t count) {
  py::array_t<float> log_probs = zeros<float>({count}), backoffs = zeros<float>({count});
  for (py::ssize_t i = 0; i < count; ++i) {
    log_probs.mutable_data()[i] = ngram_log_prob(entries[i]);
    backoffs.mutable_data()[i] = entries[i].backoff + 0.0f;  // −0 becomes 0
  }
  py::array_t<int32_t> words = zeros<int32_t>({count, 1});
  for (py::ssize_t i = 0; i < count; ++i) words.mutable_data()[i] = int32_t(i);
  return py::make_tuple(words, log_probs, backoffs);
}

// The n-grams of a trie of KenLM: for each order, words [count, order], log-probabilities, back-off weights. The
// arguments are those of read_kenlm_trie.
py::list list_kenlm_trie(const FileBytes& file, const Array<int64_t>& shape) {
  const KenlmTrie trie = parsed(file, shape);
  std::vector<NGramEntry> unigrams(trie.vocabulary());
  struct Order {
    py::array_t<int32_t> words;
    py::array_t<float> log_probs, backoffs;
    int32_t* next_words;
    float *next_log_prob, *next_backoff;
  };
  std::vector<Order> orders;
  for (size_t n = 2; n <= size_t(trie.order()); ++n) {
    const py::ssize_t count = py::ssize_t(trie.levels()[n - 2].count);
    Order order{zeros<int32_t>({count, py::ssize_t(n)}), zeros<float>({count}), zeros<float>({count}), {}, {}, {}};
    order.next_words = order.words.mutable_data();
    order.next_log_prob = order.log_probs.mutable_data();
    order.next_backoff = order.backoffs.mutable_data();
    orders.push_back(std::move(order));
  }
  {
    py::gil_scoped_release release;
    trie.read([&](int32_t n, const int32_t* ids, uint64_t, NGramEntry entry) {
      if (n == 1) {
        unigrams[ids[0]] = entry;
        return;
      }
      Order& order = orders[size_t(n - 2)];
      for (int32_t i = n; i-- > 0;) *order.next_words++ = ids[i];
      *order.next_log_prob++ = ngram_log_prob(entry);
      *order.next_backoff++ = entry.backoff + 0.0f;
    });
  }
  py::list result;
  result.append(unmarked(unigrams.data(), py::ssize_t(unigrams.size())));
  for (Order& order : orders) result.append(py::make_tuple(order.words, order.log_probs, order.backoffs));
  return result;
}

// As list_kenlm_trie, of unigrams and the n-grams of higher orders.
py::list listed(const NGramEntry* unigrams, size_t vocabulary, const std::vector<NGramList>& lists) {
  py::list result;
  result.append(unmarked(unigrams, py::ssize_t(vocabulary)));
  py::ssize_t n = 2;
  for (const NGramList& list : lists) {
    const py::ssize_t count = py::ssize_t(list.log_probs.size());
    result.append(py::make_tuple(copied<int32_t>(list.words.data(), {count, n++}),
                                 copied<float>(list.log_probs.data(), {count}),
                                 copied<float>(list.backoffs.data(), {count})));
  }
  return result;
}

// The n-grams that a reader of an ARPA file has kept.
py::list list_arpa(ArpaReader& reader) {
  const std::vector<NGramEntry>& unigrams = reader.builder().unigrams();
  return listed(unigrams.data(), unigrams.size(), reader.kept());
}

// The n-grams of a model, found by trying.
py::list recover(const NGramModel& model, uint64_t most_pairs) {
  if (model.tables().trie) throw py::value_error("expected hash tables, received a trie");
  std::vector<NGramList> lists;
  {
    py::gil_scoped_release release;
    lists = recover_ngrams(model.tables(), most_pairs);
  }
  return listed(model.tables().unigrams, size_t(model.tables().vocabulary), lists);
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1))
    lines.push_back(text.substr(0, end));
  return lines;
}

// The tables of what KneserNey has estimated: its words, and the n-grams of each order.
py::dict make_tables(std::string_view strings,
                     const std::vector<std::tuple<Array<int32_t>, Array<float>, Array<float>>>& orders) {
  NGramBuilder builder;
  {
    py::gil_scoped_release release;
    const std::vector<std::string_view> vocabulary = split_lines(strings);
    for (size_t n = 1; n <= orders.size(); ++n) {
      const auto& [words, log_probs, backoffs] = orders[n - 1];
      for (py::ssize_t i = 0; i < log_probs.size(); ++i) {
        const int32_t* ids = words.data() + i * py::ssize_t(n);
        const float log_prob = log_probs.data()[i], backoff = backoffs.data()[i];
        const bool added = n == 1 ? builder.add_word(vocabulary[ids[0]], log_prob, backoff)
                                  : builder.add(ids, int32_t(n), log_prob, backoff);
        if (!added) throw TextError("expected every n-gram once");
      }
    }
  }
  return finished(builder);
}

py::bytes format_ngrams(std::string_view strings, const Array<int32_t>& words, const Array<float>& log_probs,
                        const std::optional<Array<float>>& backoffs, int64_t begin, int64_t end) {
  std::string lines;
  {
    py::gil_scoped_release release;
    lines = arpa_lines(split_lines(strings), words.data(), log_probs.data(), backoffs ? backoffs->data() : nullptr,
                       int32_t(words.shape(1)), begin, end);
  }
  return lines;
}

py::array_t<int64_t> make_hash_table(const Array<uint64_t>& keys, const Array<uint64_t>& payloads) {
  HashBuilder builder;
  for (py::ssize_t i = 0; i < keys.size(); ++i) builder.insert(keys.data()[i], payloads.data()[i]);
  return finished(builder);
}

py::array_t<int64_t> make_small_hash_table(const Array<uint64_t>& keys, const Array<uint16_t>& codes) {
  py::array_t<int64_t> table = empty_slots({py::ssize_t(finished_size(uint64_t(keys.size())))});
  write_small_hash_table(keys.data(), codes.data(), uint64_t(keys.size()),
                         reinterpret_cast<uint64_t*>(table.mutable_data()));
  return table;
}

// The size of the hash table with these slots.
uint64_t table_size(const py::array& slots, const char* name) {
  if (slots.shape(0) % py::ssize_t(kHashGroup))
    throw py::value_error(std::string(name) + ": expected a multiple of " + std::to_string(kHashGroup) +
                          " slots, received " + std::to_string(slots.shape(0)));
  return uint64_t(slots.shape(0));
}

// The id of a word in a table of words, [size, 2].
std::optional<uint64_t> find_word(const py::array& words, std::string_view word) {
  const HashTable table{reinterpret_cast<const HashSlot*>(checked<int64_t>(words, "words", {-1, 2})),
                        table_size(words, "words")};
  uint64_t id;
  const uint64_t hash = murmur_hash(word.data(), word.size());
  if (!table.find(hash, table.first(hash), id)) return std::nullopt;
  return id;
}

// The text of a Python string, as a view of the string's memory.
std::string_view utf8(const py::handle& text, const char* name) {
  if (!PyUnicode_Check(text.ptr()))
    throw py::type_error(std::string(name) + ": expected a string, received " +
                         py::str(py::type::of(text)).cast<std::string>());
  Py_ssize_t bytes;
  const char* begin = PyUnicode_AsUTF8AndSize(text.ptr(), &bytes);
  if (!begin) throw py::error_already_set();
  return {begin, size_t(bytes)};
}

// The texts of Python strings, as views. `kept` keeps the strings alive.
std::vector<std::string_view> views(const py::sequence& sentences, py::tuple& kept) {
  kept = py::tuple(sentences);
  std::vector<std::string_view> result;
  result.reserve(kept.size());
  for (const py::handle sentence : kept) result.push_back(utf8(sentence, "sentences"));
  return result;
}

double total(const WordScore* scores, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += double(scores[i].log_prob);
  return sum;
}

double score_sentence(const NGramModel& model, const py::object& sentence, bool bos, bool eos) {
  double score = 0;
  NGramScorer(model.tables(), model.tokenizer(), bos, eos)(
      {utf8(sentence, "sentence")},
      [&](size_t, const WordScore* scores, size_t count) { score = total(scores, count); });
  return score;
}

py::array_t<double> score_sentences(const NGramModel& model, const py::sequence& sentences, bool bos, bool eos) {
  py::tuple kept;
  const std::vector<std::string_view> texts = views(sentences, kept);
  py::array_t<double> totals(py::ssize_t(texts.size()));
  double* values = totals.mutable_data();
  {
    py::gil_scoped_release release;
    NGramScorer(model.tables(), model.tokenizer(), bos, eos)(
        texts, [&](size_t i, const WordScore* scores, size_t count) { values[i] = total(scores, count); });
  }
  return totals;
}

// Scores one sentence. For each word: log10 probability, matched words, word id.
py::tuple score_words(const NGramModel& model, const py::object& sentence, bool bos, bool eos) {
  py::tuple words;
  NGramScorer scorer(model.tables(), model.tokenizer(), bos, eos);
  scorer({utf8(sentence, "sentence")}, [&](size_t, const WordScore* scores, size_t count) {
    py::list log_probs(count), matched(count), ids(count);
    for (size_t i = 0; i < count; ++i) {
      log_probs[i] = scores[i].log_prob;
      matched[i] = scores[i].matched;
      ids[i] = scores[i].word;
    }
    words = py::make_tuple(log_probs, matched, ids);
  });
  return words;
}

// Scores n-grams. For each of its words: log10 probability after the words before it in the n-gram, without others.
// words: [count, n] ids; −1 is a word that the model lacks: its probability is 0, and nothing is known of it
// afterwards.
py::array_t<float> score_ngrams(const NGramModel& model, const Array<int32_t>& words) {
  if (words.ndim() != 2)
    throw py::value_error("words: expected 2 dimensions, received " + std::to_string(words.ndim()));
  const NGramTables& tables = model.tables();
  for (py::ssize_t i = 0; i < words.size(); ++i)
    if (words.data()[i] < -1 || words.data()[i] >= tables.vocabulary)
      throw py::value_error("words: expected ids of words, received " + std::to_string(words.data()[i]));
  py::array_t<float> result = zeros<float>({words.shape(0), words.shape(1)});
  const py::ssize_t count = words.shape(0), order = words.shape(1);
  const int32_t* next = words.data();
  float* log_prob = result.mutable_data();
  py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < count; ++i) {
    NGramState states[2] = {ngram_null_state(), ngram_null_state()};
    for (py::ssize_t k = 0; k < order; ++k, ++next, ++log_prob) {
      if (*next >= 0)
        *log_prob = ngram_score(tables, states[k % 2], *next, states[(k + 1) % 2]);
      else
        *log_prob = -INFINITY, states[(k + 1) % 2] = ngram_null_state();
    }
  }
  return result;
}

void check_word(const NGramModel& model, int64_t word, const char* name) {
  if (word < 0 || word >= model.tables().vocabulary)
    throw py::value_error(std::string(name) + ": expected an id between 0 and " +
                          std::to_string(model.tables().vocabulary - 1) + ", received " + std::to_string(word));
}

void bind_states(py::module_& m) {
  py::class_<NGramState>(m, "NGramState", "What a model keeps of the words before; made by NGramLM.start and step.")
      .def_property_readonly(
          "words",
          [](const NGramState& state) { return std::vector<int32_t>(state.words, state.words + state.length); },
          "Ids of the words that still count, most recent first.")
      .def(
          "__eq__", [](const NGramState& a, const NGramState& b) { return ngram_equal(a, b); }, py::is_operator())
      .def("__hash__", [](const NGramState& state) { return int64_t(ngram_state_hash(state) >> 1); })
      .def("__repr__",
           [](const NGramState& state) {
             return "NGramState(words=" +
                    py::str(py::cast(std::vector<int32_t>(state.words, state.words + state.length)))
                        .cast<std::string>() +
                    ")";
           })
      .def(py::pickle(
          [](const NGramState& state) { return py::bytes(reinterpret_cast<const char*>(&state), sizeof state); },
          [](const py::bytes& pickled) {
            const std::string_view bytes = pickled;
            NGramState state;
            if (bytes.size() != sizeof state) throw py::value_error("NGramState: expected another pickle");
            memcpy(&state, bytes.data(), sizeof state);
            if (state.length < 0 || state.length >= kMaxOrder)
              throw py::value_error("NGramState: expected another pickle");
            return state;
          }));
}

}  // namespace

MappedTrie::MappedTrie(py::array file, py::array shape)
    : file_(std::move(file)),
      parsed_({reinterpret_cast<const char*>(checked<uint8_t>(file_, "trie", {-1})), size_t(file_.size())},
              {checked<int64_t>(shape, "trie_shape", {-1}), size_t(shape.size())}),
      trie_(parsed_) {
  parsed_.check_words();
  trie_.index_words();
}

py::array_t<float> MappedTrie::unigrams() const {
  py::array_t<float> result = zeros<float>({py::ssize_t(parsed_.vocabulary()), 2});
  auto* const entries = reinterpret_cast<NGramEntry*>(result.mutable_data());
  TrieRange range;
  for (uint32_t word = 0; word < parsed_.vocabulary(); ++word) entries[word] = trie_.unigram(int32_t(word), range);
  return result;
}

void MappedTrie::check_values() const {
  parsed_.read([](int32_t order, const int32_t*, uint64_t, NGramEntry entry) {
    check_entry(entry.log_prob, entry.backoff, order == 1 ? "unigrams" : "ngrams");
  });
}

NGramModel::NGramModel(py::array unigrams, py::object ngrams, py::object codebook, py::object words, int64_t order,
                       int64_t bos, int64_t eos, bool characters, std::string space, py::object trie)
    : kept_(py::make_tuple(unigrams, ngrams, codebook, words, trie)), tokenizer_{characters, std::move(space)} {
  tables_.unigrams = reinterpret_cast<const NGramEntry*>(checked<float>(unigrams, "unigrams", {-1, 2}));
  tables_.vocabulary = int32_t(unigrams.shape(0));
  if (!trie.is_none())
    view_trie(trie.cast<const MappedTrie&>(), order);
  else
    view_tables(ngrams.cast<py::array>(), codebook, words.cast<py::array>());
  if (order < 1 || order > kMaxOrder)
    throw py::value_error("order: expected 1 to " + std::to_string(kMaxOrder) + ", received " + std::to_string(order));
  check_word(*this, bos, "bos");
  check_word(*this, eos, "eos");
  tables_.order = int32_t(order);
  tables_.bos = int32_t(bos);
  tables_.eos = int32_t(eos);
}

void NGramModel::view_trie(const MappedTrie& trie, int64_t order) {
  if (order != trie.parsed().order() || tables_.vocabulary != int32_t(trie.parsed().vocabulary()))
    throw py::value_error("trie: expected one of order " + std::to_string(order) + " with " +
                          std::to_string(tables_.vocabulary) + " words, received one of order " +
                          std::to_string(trie.parsed().order()) + " with " +
                          std::to_string(trie.parsed().vocabulary()));
  mapped_ = &trie;
  tables_.trie = &trie.trie();
}

void NGramModel::view_tables(const py::array& ngrams, const py::object& codebook, const py::array& words) {
  tables_.words = {reinterpret_cast<const HashSlot*>(checked<int64_t>(words, "words", {-1, 2})),
                   table_size(words, "words")};
  if (codebook.is_none()) {
    tables_.ngrams = {reinterpret_cast<const HashSlot*>(checked<int64_t>(ngrams, "ngrams", {-1, 2})),
                      table_size(ngrams, "ngrams")};
  } else {
    tables_.codebook = checked<float>(codebook.cast<py::array>(), "codebook", {2, 256});
    tables_.quantized = {reinterpret_cast<const uint64_t*>(checked<int64_t>(ngrams, "ngrams", {-1})),
                         table_size(ngrams, "ngrams")};
  }
}

void NGramModel::check_values() const {
  if (mapped_)
    mapped_->check_values();
  else
    check_tables(tables_);
}

void bind_ngram(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const TextError& error) {
      const char* what = error.what();
      const auto message =
          py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(what, Py_ssize_t(strlen(what)), "backslashreplace"));
      if (message) PyErr_SetObject(PyExc_ValueError, message.ptr());
    }
  });
  m.attr("MAX_ORDER") = kMaxOrder;
  bind_states(m);

  py::class_<MappedTrie>(m, "MappedTrie", "A trie of KenLM that is asked where it lies.")
      .def(py::init<py::array, py::array>(), py::arg("trie"), py::arg("trie_shape"))
      .def_property_readonly("bytes", [](const MappedTrie& trie) { return trie.parsed().bytes(); })
      .def("find_word",
           [](const MappedTrie& trie, std::string_view word) {
             return trie.trie().find_word(murmur_hash(word.data(), word.size()));
           })
      .def("unigrams", &MappedTrie::unigrams);

  py::class_<NGramModel>(m, "NGramModel")
      .def(py::init<py::array, py::object, py::object, py::object, int64_t, int64_t, int64_t, bool, std::string,
                    py::object>(),
           py::arg("unigrams"), py::arg("ngrams"), py::arg("codebook"), py::arg("words"), py::arg("order"),
           py::arg("bos"), py::arg("eos"), py::arg("characters"), py::arg("space"), py::arg("trie") = py::none())
      .def("word_id",
           [](const NGramModel& model, const py::object& text) {
             const std::string_view word = utf8(text, "word");
             return ngram_word(model.tables(), word.data(), word.size());
           })
      .def("encode",
           [](const NGramModel& model, const py::object& sentence) {
             std::vector<int32_t> ids;
             model.tokenizer()(utf8(sentence, "sentence"), [&](std::string_view word) {
               ids.push_back(ngram_word(model.tables(), word.data(), word.size()));
             });
             return ids;
           })
      .def("start",
           [](const NGramModel& model, bool bos) { return bos ? ngram_bos_state(model.tables()) : ngram_null_state(); })
      .def("step",
           [](const NGramModel& model, const NGramState& state, int64_t word) {
             check_word(model, word, "word");
             NGramState next;
             const float log_prob = ngram_score(model.tables(), state, int32_t(word), next);
             return std::pair(log_prob, next);
           })
      .def("check_values", &NGramModel::check_values, Release())
      .def("recover", &recover)
      .def("score_ngrams", &score_ngrams)
      .def("score_words", &score_words)
      .def("score_sentence", &score_sentence)
      .def("score_sentences", &score_sentences);

  py::class_<ArpaReader>(m, "ArpaReader")
      .def(py::init<bool>(), py::arg("keep") = false)
      .def("feed", &ArpaReader::feed, Release())
      .def("finish", &ArpaReader::finish)
      .def_property_readonly("order", &ArpaReader::order)
      .def_property_readonly("unit", [](const ArpaReader& reader) { return py::bytes(reader.unit()); })
      .def("warnings",
           [](const ArpaReader& reader) {
             py::list texts;
             for (const std::string& warning : reader.warnings())
               texts.append(py::reinterpret_steal<py::object>(
                   PyUnicode_DecodeUTF8(warning.data(), Py_ssize_t(warning.size()), "backslashreplace")));
             return texts;
           })
      .def("word_id", [](ArpaReader& reader, std::string_view word) { return reader.builder().find(word); })
      .def("ngrams", &list_arpa)
      .def("tables", [](ArpaReader& reader) { return finished(reader.builder()); });

  py::class_<KneserNey>(m, "KneserNey")
      .def(py::init([](int32_t order, bool characters, std::string space) {
        return KneserNey(order, Tokenizer{characters, std::move(space)});
      }))
      .def("begin_text", &KneserNey::begin_text)
      .def("feed", &KneserNey::feed, Release())
      .def("finish", &KneserNey::finish, Release())
      .def("estimate", &KneserNey::estimate, Release())
      .def("strings", [](const KneserNey& estimator) { return py::bytes(estimator.strings()); })
      .def("ngrams", [](const KneserNey& estimator, int32_t n) {
        const KneserNey::NGrams ngrams = estimator.ngrams(n);
        const py::ssize_t count = py::ssize_t(ngrams.log_probs.size());
        return py::make_tuple(copied<int32_t>(ngrams.words.data(), {count, n}),
                              copied<float>(ngrams.log_probs.data(), {count}),
                              copied<float>(ngrams.backoffs.data(), {count}));
      });

  m.def("make_tables", &make_tables);
  m.def("read_kenlm_trie", &read_kenlm_trie);
  m.def("list_kenlm_trie", &list_kenlm_trie);
  m.def("make_hash_table", &make_hash_table);
  m.def("make_small_hash_table", &make_small_hash_table);
  m.def("find_word", &find_word);
  m.def("format_ngrams", &format_ngrams);
}

}  // namespace asrkern
