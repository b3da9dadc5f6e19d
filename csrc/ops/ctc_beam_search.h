// What the CPU and the CUDA side of ctc_beam_search share: reading the arguments, making the results.
#pragma once

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "csrc/ops/common.h"
#include "kernels/ctc/context_arrays.h"
#include "kernels/ctc/ctc_result_team.h"

namespace asrkern {

using CtcResultTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Views of tensors that `kept` keeps alive.
class Keeper {
 public:
  // All are to be on the device of `like`.
  explicit Keeper(const Tensor& like) : like_(like), readable_(like.is_cpu()) {}

  template <class T>
  Array<T> view(const Tensor& tensor, const char* name, size_t dimensions = 1) {
    constexpr ScalarType kTypes[] = {ScalarType::Byte, ScalarType::Int, ScalarType::Long, ScalarType::Float};
    constexpr int kType = sizeof(T) == 1 ? 0 : std::is_floating_point_v<T> ? 3 : sizeof(T) == 4 ? 1 : 2;
    check(name, tensor).device(like_).dtype(kTypes[kType]).dim(dimensions);
    kept_.push_back(dense(tensor));
    return {data<T>(kept_.back()), kept_.back().numel(), readable_};
  }

 private:
  std::vector<Tensor> kept_;
  const Tensor like_;
  const bool readable_;
};

// tensors: unigrams [vocabulary, 2], n-grams [slots, 2], or [slots] and a codebook; see kernels/lm/ngram.h.
inline NGramTables make_tables(Keeper& keeper, const std::vector<Tensor>& tensors, int64_t order, int64_t bos,
                               int64_t eos) {
  const char* name = "language_model";
  const bool quantized = tensors.size() == 3;
  if (tensors.size() < 2 || tensors.size() > 3 || tensors[0].dim() != 2 || tensors[0].size(1) != 2 ||
      tensors[0].size(0) < 1 || tensors[0].size(0) > INT32_MAX || tensors[1].dim() != (quantized ? 1 : 2) ||
      (!quantized && tensors[1].size(1) != 2) || tensors[1].size(0) < 1 || tensors[1].size(0) % HASH_GROUP ||
      (quantized && tensors[2].numel() != 512))
    invalid(name,
            ": expected unigrams [vocabulary, 2], ngrams [slots, 2], or [slots] and a codebook [2, 256], with a "
            "multiple of ",
            HASH_GROUP, " slots");
  NGramTables tables{};
  tables.unigrams = reinterpret_cast<const NGramEntry*>(keeper.view<float>(tensors[0], name, 2).data);
  tables.vocabulary = int32_t(tensors[0].size(0));
  const int64_t* slots = keeper.view<int64_t>(tensors[1], name, quantized ? 1 : 2).data;
  if (quantized) {
    tables.quantized = {reinterpret_cast<const uint64_t*>(slots), uint64_t(tensors[1].size(0))};
    tables.codebook = keeper.view<float>(tensors[2], name, 2).data;
  } else {
    tables.ngrams = {reinterpret_cast<const HashSlot*>(slots), uint64_t(tensors[1].size(0))};
  }
  if (order < 1 || order > MAX_ORDER)
    invalid("language_model: expected an order of 1 to ", MAX_ORDER, ", received ", order);
  for (const int64_t word : {bos, eos})
    if (word < 0 || word >= tables.vocabulary)
      invalid("language_model: expected <s> and </s> between 0 and ", tables.vocabulary - 1, ", received ", word);
  tables.order = int32_t(order);
  tables.bos = int32_t(bos);
  tables.eos = int32_t(eos);
  return tables;
}

// log_probs: [N, T, V] float32; lengths: [N] int64 or none.
inline void check_batch(const Tensor& log_probs, const std::optional<Tensor>& lengths) {
  check("log_probs", log_probs).dtype(ScalarType::Float).dim(3);
  if (log_probs.size(2) < 1 || log_probs.size(2) > INT32_MAX)
    invalid("log_probs: expected 1 to ", INT32_MAX, " tokens, received shape ", shape_text(sizes_of(log_probs)));
  check("lengths", lengths).dtype(ScalarType::Long).shape({log_probs.size(0)}).device(log_probs);
}

// The arguments of the operation but log_probs, lengths and num_threads. Not to be copied: the model points into it.
struct CtcArguments {
  Keeper keeper;
  NGramTables tables;
  ContextModel model;
  CtcBeamOptions options;
  int64_t nbest;

  CtcArguments(const Tensor& log_probs, const Tensor& token_kinds, const std::vector<Tensor>& language_model,
               int64_t lm_order, int64_t lm_bos, int64_t lm_eos, const std::optional<Tensor>& lm_tokens,
               const std::vector<Tensor>& lexicon, const std::vector<Tensor>& hotwords, double alpha, double beta,
               std::optional<double> unk_score, double unknown_look_ahead, double begin_reach, int64_t blank,
               int64_t beam_width, int64_t nbest, int64_t top_tokens, double token_min_logp, double beam_prune_logp,
               double blank_penalty, bool log_add, bool check_normalized, const std::optional<Tensor>& texts,
               int64_t history)
      : keeper(log_probs), nbest(nbest) {
    for (const Tensor& tensor : language_model) check("language_model", tensor);
    const auto int32 = [](int64_t value) { return int32_t(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX)); };
    options.row = {int32(log_probs.size(2)), int32(blank),         int32(top_tokens),
                   float(token_min_logp),    float(blank_penalty), check_normalized};
    options.beam_width = int32(beam_width);
    options.beam_prune_logp = float(beam_prune_logp);
    options.add = log_add;
    options.history = int32(history);
    check_options(options, nbest);

    ContextArrays arrays{};
    arrays.token_kinds = keeper.view<uint8_t>(token_kinds, "token_kinds");
    if (!lexicon.empty()) {
      if (lexicon.size() != 9) invalid("lexicon: expected 9 tensors or none, received ", lexicon.size());
      const auto ints = [&](size_t i) { return keeper.view<int32_t>(lexicon[i], "lexicon"); };
      const auto longs = [&](size_t i) { return keeper.view<int64_t>(lexicon[i], "lexicon"); };
      const auto floats = [&](size_t i) { return keeper.view<float>(lexicon[i], "lexicon"); };
      arrays.lexicon = {ints(0), ints(1), ints(2), ints(4), ints(5), ints(6), longs(3), floats(7), floats(8)};
    }
    if (!hotwords.empty()) {
      if (hotwords.size() != 7) invalid("hotwords: expected 7 tensors or none, received ", hotwords.size());
      const auto ints = [&](size_t i) { return keeper.view<int32_t>(hotwords[i], "hotwords"); };
      const auto longs = [&](size_t i) { return keeper.view<int64_t>(hotwords[i], "hotwords"); };
      const auto floats = [&](size_t i) { return keeper.view<float>(hotwords[i], "hotwords"); };
      arrays.hotwords = {ints(0), ints(1), ints(2), longs(3), floats(4), floats(5), floats(6)};
    }
    if (lm_tokens) arrays.lm_tokens = keeper.view<int32_t>(*lm_tokens, "lm_tokens");
    if (texts) {
      check("texts", texts).shape({1 + log_probs.size(2) + arrays.lexicon.lm_words.size, 2});
      arrays.texts = keeper.view<int64_t>(*texts, "texts", 2);
    }
    arrays.alpha = alpha;
    arrays.beta = beta;
    arrays.allow_unknown = unk_score.has_value();
    arrays.unk_score = unk_score.value_or(0);
    arrays.unknown_look_ahead = unknown_look_ahead;
    arrays.begin_reach = begin_reach;
    if (!language_model.empty()) tables = make_tables(keeper, language_model, lm_order, lm_bos, lm_eos);
    model = make_context(arrays, language_model.empty() ? nullptr : &tables, options.row.vocabulary);
  }

  CtcArguments(const CtcArguments&) = delete;
  CtcArguments& operator=(const CtcArguments&) = delete;
};

// The operation's results, and where they are.
struct CtcResults {
  CtcResultTensors tensors;
  CtcOutput output;  // of the first row
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

}  // namespace asrkern
