// What ctc_beam_search on the CPU and on CUDA share: reading the arguments, and making the results.
#pragma once

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "csrc/ops/boxed.h"
#include "csrc/ops/common.h"
#include "kernels/ctc/context_arrays.h"
#include "kernels/ctc/ctc_options.h"
#include "kernels/ctc/ctc_result_team.h"
#include "kernels/lm/kenlm_trie.h"
#include "kernels/lm/ngram_trie.h"

namespace asrkern {

using CtcResultTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Makes tensors dense, and keeps them alive while a search points into them.
class KeptTensors {
 public:
  // All tensors have to be on the device of `like`.
  explicit KeptTensors(const Tensor& like) : like_(like), readable_(like.is_cpu()) {}

  template <class T>
  void view(const Tensor& tensor, const char* name, Array<T>& array, size_t dimensions = 1) {
    constexpr ScalarType kTypes[] = {ScalarType::Byte, ScalarType::Int, ScalarType::Long, ScalarType::Float};
    constexpr int kType = sizeof(T) == 1 ? 0 : std::is_floating_point_v<T> ? 3 : sizeof(T) == 4 ? 1 : 2;
    check(name, tensor).device(like_).dtype(kTypes[kType]).dim(dimensions);
    kept_.push_back(dense(tensor));
    array = {data<T>(kept_.back()), kept_.back().numel(), readable_};
  }

 private:
  std::vector<Tensor> kept_;
  const Tensor like_;
  const bool readable_;
};

// tensors: unigrams [vocabulary, 2]; n-grams [slots, 2], or [slots] and a codebook; see kernels/lm/ngram.h. Or unigrams
// and a trie of KenLM, [bytes] and [2 + order]; see KenlmTrie. trie: where what the tables point to is kept.
inline NGramTables make_tables(KeptTensors& kept, const std::vector<Tensor>& tensors, int64_t order, int64_t bos,
                               int64_t eos, std::optional<NGramTrie>& trie) {
  const char* name = "language_model";
  const bool is_trie = tensors.size() == 3 && tensors[1].scalar_type() == ScalarType::Byte;
  const bool quantized = tensors.size() == 3 && !is_trie;
  if (tensors.size() < 2 || tensors.size() > 3 || tensors[0].dim() != 2 || tensors[0].size(1) != 2 ||
      tensors[0].size(0) < 1 || tensors[0].size(0) > INT32_MAX)
    invalid(name, ": expected unigrams [vocabulary, 2] and ngrams");
  if (!is_trie &&
      (tensors[1].dim() != (quantized ? 1 : 2) || (!quantized && tensors[1].size(1) != 2) || tensors[1].size(0) < 1 ||
       tensors[1].size(0) % kHashGroup || (quantized && tensors[2].numel() != 512)))
    invalid(name,
            ": expected unigrams [vocabulary, 2], ngrams [slots, 2], or [slots] and a codebook [2, 256], with a "
            "multiple of ",
            kHashGroup, " slots");
  NGramTables tables{};
  Array<float> unigrams, codebook;
  Array<int64_t> slots;
  kept.view(tensors[0], name, unigrams, 2);
  tables.unigrams = reinterpret_cast<const NGramEntry*>(unigrams.data);
  tables.vocabulary = int32_t(tensors[0].size(0));
  if (is_trie) {
    Array<uint8_t> file;
    kept.view(tensors[1], name, file);
    kept.view(tensors[2], name, slots);
    if (!tensors[1].is_cpu())
      invalid(name, ": expected hash tables, since log_probs are not on the CPU; received a trie");
    trie.emplace(
        KenlmTrie({reinterpret_cast<const char*>(file.data), size_t(file.size)}, {slots.data, size_t(slots.size)}));
    if (trie->order() != order || trie->vocabulary() != tables.vocabulary)
      invalid(name, ": expected a trie of order ", order, " with ", tables.vocabulary, " words, received order ",
              trie->order(), " with ", trie->vocabulary());
    tables.trie = &*trie;
  } else if (kept.view(tensors[1], name, slots, quantized ? 1 : 2); quantized) {
    kept.view(tensors[2], name, codebook, 2);
    tables.quantized = {reinterpret_cast<const uint64_t*>(slots.data), uint64_t(tensors[1].size(0))};
    tables.codebook = codebook.data;
  } else {
    tables.ngrams = {reinterpret_cast<const HashSlot*>(slots.data), uint64_t(tensors[1].size(0))};
  }
  if (order < 1 || order > kMaxOrder)
    invalid("language_model: expected an order of 1 to ", kMaxOrder, ", received ", order);
  for (const int64_t word : {bos, eos})
    if (word < 0 || word >= tables.vocabulary)
      invalid("language_model: expected <s> and </s> between 0 and ", tables.vocabulary - 1, ", received ", word);
  tables.order = int32_t(order);
  tables.bos = int32_t(bos);
  tables.eos = int32_t(eos);
  return tables;
}

// log_probs: [N, T, V] float32; lengths: [N] int64, or none.
inline void check_batch(const Tensor& log_probs, const std::optional<Tensor>& lengths) {
  check("log_probs", log_probs).dtype(ScalarType::Float).dim(3);
  if (log_probs.size(2) < 1 || log_probs.size(2) > INT32_MAX)
    invalid("log_probs: expected 1 to ", INT32_MAX, " tokens, received shape ", shape_text(sizes_of(log_probs)));
  check("lengths", lengths).dtype(ScalarType::Long).shape({log_probs.size(0)}).device(log_probs);
}

// The fields of asrkern.ops.CTCContext.
struct CtcContextTensors {
  const Tensor& token_kinds;
  const std::vector<Tensor>& language_model;
  int64_t lm_order, lm_bos, lm_eos;
  const std::optional<Tensor>& lm_tokens;
  const std::vector<Tensor>& lexicon;
  const std::vector<Tensor>& hotwords;
  const std::optional<Tensor>& texts;
  ContextNumbers numbers;
};

// The checked arguments of a search. Not to be copied: the model points into them.
struct CtcArguments {
  KeptTensors kept;
  NGramTables tables;
  std::optional<NGramTrie> trie;
  ContextModel model;
  CtcBeamOptions options;
  int64_t nbest;
  int64_t num_threads;  // on the CPU

  CtcArguments(const Tensor& log_probs, const CtcContextTensors& context, const CtcOptions& given, int64_t num_threads)
      : kept(log_probs), options(beam_options(given, log_probs.size(2))), nbest(given.nbest), num_threads(num_threads) {
    for (const Tensor& tensor : context.language_model) check("language_model", tensor);
    const auto view = [this](const Tensor& tensor, const char* name, auto& array) { kept.view(tensor, name, array); };
    ContextArrays arrays{};
    view(context.token_kinds, "token_kinds", arrays.token_kinds);
    view_each(arrays.lexicon, context.lexicon, "lexicon", view);
    view_each(arrays.hotwords, context.hotwords, "hotwords", view);
    if (context.lm_tokens) view(*context.lm_tokens, "lm_tokens", arrays.lm_tokens);
    if (context.texts) {
      check("texts", *context.texts).shape({1 + log_probs.size(2) + arrays.lexicon.lm_words.size, 2});
      kept.view(*context.texts, "texts", arrays.texts, 2);
    }
    arrays.numbers = context.numbers;
    const bool lm = !context.language_model.empty();
    if (lm) tables = make_tables(kept, context.language_model, context.lm_order, context.lm_bos, context.lm_eos, trie);
    model = make_context(arrays, lm ? &tables : nullptr, options.row.vocabulary);
  }

  CtcArguments(const CtcArguments&) = delete;
  CtcArguments& operator=(const CtcArguments&) = delete;
};

// The operation's results, and pointers to them.
struct CtcResults {
  CtcResultTensors tensors;
  CtcOutput output;  // pointers to the first row's
  int32_t* errors;

  CtcResults(const Tensor& log_probs, int64_t nbest) {
    const int64_t rows = log_probs.size(0), frames = log_probs.size(1);
    auto& [tokens, timesteps, words, confidences, token_lengths, scores, am_scores, error] = tensors;
    const auto make = [&](Tensor& tensor, std::vector<int64_t> sizes, ScalarType type) {
      tensor = allocate(log_probs, sizes, type);
    };
    make(tokens, {rows, nbest, frames}, ScalarType::Int);
    make(timesteps, {rows, nbest, frames, 2}, ScalarType::Int);
    make(words, {rows, nbest, frames}, ScalarType::Int);
    make(confidences, {rows, nbest, frames}, ScalarType::Float);
    make(token_lengths, {rows, nbest}, ScalarType::Int);
    make(scores, {rows, nbest}, ScalarType::Double);
    make(am_scores, {rows, nbest}, ScalarType::Double);
    make(error, {rows, 2}, ScalarType::Int);
    output = {mutable_data<int32_t>(tokens),
              mutable_data<int32_t>(timesteps),
              mutable_data<int32_t>(words),
              mutable_data<float>(confidences),
              mutable_data<int32_t>(token_lengths),
              mutable_data<double>(scores),
              mutable_data<double>(am_scores),
              nbest,
              frames};
    errors = mutable_data<int32_t>(error);
  }
};

// The operation, given the search of a device.
template <CtcResultTensors (*search)(const Tensor& log_probs, const std::optional<Tensor>& lengths,
                                     const CtcArguments& arguments)>
CtcResultTensors ctc_beam_search(const Tensor& log_probs, const std::optional<Tensor>& lengths,
                                 const Tensor& token_kinds, const std::vector<Tensor>& language_model, int64_t lm_order,
                                 int64_t lm_bos, int64_t lm_eos, const std::optional<Tensor>& lm_tokens,
                                 const std::vector<Tensor>& lexicon, const std::vector<Tensor>& hotwords,
                                 const std::optional<Tensor>& texts, ContextNumbers numbers, CtcOptions options,
                                 int64_t num_threads) {
  check_batch(log_probs, lengths);
  const CtcContextTensors context{token_kinds, language_model, lm_order, lm_bos, lm_eos,
                                  lm_tokens,   lexicon,        hotwords, texts,  numbers};
  return search(log_probs, lengths, CtcArguments(log_probs, context, options, num_threads));
}

}  // namespace asrkern
