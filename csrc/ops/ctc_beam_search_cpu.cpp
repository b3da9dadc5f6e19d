#include <atomic>
#include <exception>
#include <tuple>
#include <type_traits>

#include "csrc/decoder/context_arrays.h"
#include "csrc/decoder/ctc_beam_stream.h"
#include "csrc/ops/common.h"

namespace asrkern {
namespace {

// Views of tensors that `kept` keeps alive.
class Keeper {
 public:
  template <class T>
  Array<T> view(const Tensor& tensor, const char* name) {
    constexpr ScalarType kTypes[] = {ScalarType::Byte, ScalarType::Int, ScalarType::Long, ScalarType::Float};
    constexpr int kType = sizeof(T) == 1 ? 0 : std::is_floating_point_v<T> ? 3 : sizeof(T) == 4 ? 1 : 2;
    if (tensor.scalar_type() != kTypes[kType]) invalid(name, ": expected tensors of other dtypes");
    kept_.push_back(dense(tensor));
    return {data<T>(kept_.back()), kept_.back().numel()};
  }

 private:
  std::vector<Tensor> kept_;
};

// tensors: unigrams [vocabulary, 2], n-grams [slots, 2], or [slots] and a codebook; see kernels/common/ngram.h.
NGramTables make_tables(Keeper& keeper, const std::vector<Tensor>& tensors, int64_t order, int64_t bos, int64_t eos) {
  const char* name = "language_model";
  const bool quantized = tensors.size() == 3;
  if (tensors.size() < 2 || tensors.size() > 3 || tensors[0].dim() != 2 || tensors[0].size(1) != 2 ||
      tensors[0].size(0) < 1 || tensors[1].dim() != (quantized ? 1 : 2) || (!quantized && tensors[1].size(1) != 2) ||
      tensors[1].size(0) < 1 || tensors[1].size(0) % HASH_GROUP || (quantized && tensors[2].numel() != 512))
    invalid(name,
            ": expected unigrams [vocabulary, 2], ngrams [slots, 2], or [slots] and a codebook [2, 256], with a "
            "multiple of ",
            HASH_GROUP, " slots");
  NGramTables tables{};
  tables.unigrams = reinterpret_cast<const NGramEntry*>(keeper.view<float>(tensors[0], name).data);
  tables.vocabulary = int32_t(tensors[0].size(0));
  const int64_t* slots = keeper.view<int64_t>(tensors[1], name).data;
  if (quantized) {
    tables.quantized = {reinterpret_cast<const uint64_t*>(slots), uint64_t(tensors[1].size(0))};
    tables.codebook = keeper.view<float>(tensors[2], name).data;
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

// Where the results of one utterance go, [nbest, frames] and [nbest].
struct Output {
  int32_t *tokens, *timesteps, *words;
  float* confidences;
  int32_t* token_lengths;
  double *scores, *am_scores;
  int64_t nbest, frames;

  void clear() const {
    const int64_t all = nbest * frames;
    std::fill(tokens, tokens + all, -1);
    std::fill(timesteps, timesteps + 2 * all, -1);
    std::fill(words, words + all, kNoWord);
    std::fill(confidences, confidences + all, 0.0f);
    std::fill(token_lengths, token_lengths + nbest, -1);
    std::fill(scores, scores + nbest, -std::numeric_limits<double>::infinity());
    std::fill(am_scores, am_scores + nbest, -std::numeric_limits<double>::infinity());
  }

  void write(int64_t rank, const CtcHypothesis& hypothesis) const {
    int64_t at = rank * frames;
    for (const CtcToken& token : hypothesis.tokens) {
      tokens[at] = token.token;
      timesteps[2 * at] = token.start;
      timesteps[2 * at + 1] = token.end;
      words[at] = token.word;
      confidences[at++] = token.confidence;
    }
    token_lengths[rank] = int32_t(hypothesis.tokens.size());
    scores[rank] = hypothesis.score;
    am_scores[rank] = hypothesis.am_score;
  }
};

// f(item) for every item, on at most `threads` of torch's threads (0: all); each takes the next one when it is free.
// The first exception arrives here.
template <class F>
void share_out(int64_t items, int64_t threads, const F& f) {
  const cpu::ThreadPool pool = torch_threads();
  const int64_t workers = threads > 0 && threads < pool.threads ? threads : pool.threads;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  cpu::parallel_for(pool, std::min(workers, items), [&](int64_t) {
    try {
      for (int64_t item; !failed && (item = next.fetch_add(1)) < items;) f(item);
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> ctc_beam_search(
    const Tensor& log_probs, const std::optional<Tensor>& lengths, const Tensor& token_kinds,
    const std::vector<Tensor>& language_model, int64_t lm_order, int64_t lm_bos, int64_t lm_eos,
    const std::optional<Tensor>& lm_tokens, const std::vector<Tensor>& lexicon, const std::vector<Tensor>& hotwords,
    double alpha, double beta, std::optional<double> unk_score, double unknown_look_ahead, double begin_reach,
    int64_t blank, int64_t beam_width, int64_t nbest, int64_t top_tokens, double token_min_logp, double beam_prune_logp,
    double blank_penalty, bool log_add, bool check_normalized, int64_t num_threads) {
  const int64_t rows = log_probs.size(0), frames = log_probs.size(1), vocabulary = log_probs.size(2);
  const auto int32 = [](int64_t value) { return int32_t(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX)); };
  CtcBeamOptions options;
  options.row = {int32(vocabulary),     int32(blank),         int32(top_tokens),
                 float(token_min_logp), float(blank_penalty), check_normalized};
  options.beam_width = int32(beam_width);
  options.beam_prune_logp = float(beam_prune_logp);
  options.add = log_add;
  check_options(options, nbest);

  Keeper keeper;
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
  arrays.alpha = alpha;
  arrays.beta = beta;
  arrays.allow_unknown = unk_score.has_value();
  arrays.unk_score = unk_score.value_or(0);
  arrays.unknown_look_ahead = unknown_look_ahead;
  arrays.begin_reach = begin_reach;
  NGramTables tables;
  if (!language_model.empty()) tables = make_tables(keeper, language_model, lm_order, lm_bos, lm_eos);
  const ContextModel model = make_context(arrays, language_model.empty() ? nullptr : &tables, options.row.vocabulary);

  const std::vector<int64_t> counts =
      lengths ? read_lengths(*lengths, "lengths", rows, frames) : std::vector<int64_t>(size_t(rows), frames);
  const Tensor values = dense(log_probs);
  const auto make = [&](std::vector<int64_t> sizes, ScalarType type) {
    return torch::stable::new_empty(log_probs, sizes, type);
  };
  Tensor tokens = make({rows, nbest, frames}, ScalarType::Int), words = make({rows, nbest, frames}, ScalarType::Int);
  Tensor timesteps = make({rows, nbest, frames, 2}, ScalarType::Int);
  Tensor confidences = make({rows, nbest, frames}, ScalarType::Float);
  Tensor token_lengths = make({rows, nbest}, ScalarType::Int), errors = make({rows, 2}, ScalarType::Int);
  Tensor scores = make({rows, nbest}, ScalarType::Double), am_scores = make({rows, nbest}, ScalarType::Double);
  const Output all{mutable_data<int32_t>(tokens),
                   mutable_data<int32_t>(timesteps),
                   mutable_data<int32_t>(words),
                   mutable_data<float>(confidences),
                   mutable_data<int32_t>(token_lengths),
                   mutable_data<double>(scores),
                   mutable_data<double>(am_scores),
                   nbest,
                   frames};
  int32_t* error = mutable_data<int32_t>(errors);
  share_out(rows, num_threads, [&](int64_t row) {
    const int64_t before = row * nbest * frames;
    const Output output{all.tokens + before,
                        all.timesteps + 2 * before,
                        all.words + before,
                        all.confidences + before,
                        all.token_lengths + row * nbest,
                        all.scores + row * nbest,
                        all.am_scores + row * nbest,
                        nbest,
                        frames};
    output.clear();
    CtcBeamStream stream(model, options);
    const float* from = data<float>(values) + row * frames * vocabulary;
    for (int64_t t = 0; t < counts[row]; ++t) {
      const CtcError found = stream.step(model, options, from + t * vocabulary);
      error[2 * row] = found;
      error[2 * row + 1] = int32_t(t);
      if (found != kCtcOk) return;
    }
    error[2 * row] = kCtcOk;
    error[2 * row + 1] = -1;
    const std::vector<CtcHypothesis> hypotheses = stream.results(model, int32_t(nbest), true);
    for (size_t i = 0; i < hypotheses.size(); ++i) output.write(int64_t(i), hypotheses[i]);
  });
  return {tokens, timesteps, words, confidences, token_lengths, scores, am_scores, errors};
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) { m.impl("ctc_beam_search", TORCH_BOX(&asrkern::ctc_beam_search)); }
