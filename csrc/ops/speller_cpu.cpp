#include <algorithm>
#include <limits>
#include <string>
#include <tuple>

#include "csrc/ops/speller_call.h"
#include "kernels/rnn/cpu/speller_beam.h"

namespace asrkern {
namespace {

// Calls f(W()) with the type that weights are stored as.
template <class F>
auto with_weights(const Tensor& packed, const char* name, const F& f) {
  check(name, packed).dtype({ScalarType::Float, ScalarType::BFloat16, ScalarType::Char});
  switch (packed.scalar_type()) {
    case ScalarType::BFloat16:
      return f(cpu::Bf16());
    case ScalarType::Char:
      return f(int8_t());
    default:
      return f(float());
  }
}

const Tensor& first_packed(const Tensors& cells) {
  if (cells.empty()) invalid("cells: expected ", kPerCell, " tensors for each cell, received none");
  return cells[0];
}

// What ends a search.
void check_ends(int64_t eos, int64_t max_length, int64_t num_tokens) {
  if (eos < 0 || eos >= num_tokens) invalid("eos: expected a token below ", num_tokens, ", received ", eos);
  if (max_length < 1) invalid("max_length: expected at least 1, received ", max_length);
}

Tensor speller_pack(const Tensor& weight, int64_t gates) {
  check("weight", weight).dim(2);
  if (gates < 1 || weight.size(0) < 1 || weight.size(1) < 1 || weight.size(0) % gates)
    invalid("weight: expected rows that are a multiple of ", gates, ", received shape ", shape_text(sizes_of(weight)));
  return with_weights(weight, "weight", [&](auto type) {
    using W = decltype(type);
    const cpu::Kernels<float>& kernels = cpu::kernels<float>();
    const int64_t units = weight.size(0) / gates, in_features = weight.size(1);
    const Tensor values = dense(weight);
    Tensor packed = allocate(values, {kernels.gates_packed_size(units, gates, in_features)});
    prefer_huge_pages(packed);
    kernels_for<W>().pack(torch_threads(), data<W>(values), units, gates, in_features, mutable_data<W>(packed));
    return packed;
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> speller_step(const Tensor& tokens, const Tensor& states,
                                                        const Tensor& context, const std::optional<Tensor>& previous,
                                                        const Tensor& keys, const Tensor& values, const Tensor& lengths,
                                                        bool gru, const Tensor& embedding, Tensors cells,
                                                        std::string scores, int64_t heads, double scale, bool smoothing,
                                                        Tensors attention, int64_t features_begin, Tensors outputs,
                                                        std::vector<int64_t> widths, bool feeds_context) {
  const Description d{gru,       embedding, cells,          scores,  heads,  scale,
                      smoothing, attention, features_begin, outputs, widths, feeds_context};
  return with_weights(first_packed(cells), "cells: W_ih", [&](auto type) -> std::tuple<Tensor, Tensor, Tensor, Tensor> {
    Call<decltype(type)> call(d, cells[0].scalar_type(), tokens, states, context, previous, keys, values, lengths);
    call.spell(nullptr);
    return {call.logits, call.weights, call.states(states), call.context(context)};
  });
}

std::tuple<Tensor, Tensor, Tensor> speller_greedy(const Tensor& tokens, const Tensor& states, const Tensor& context,
                                                  const Tensor& keys, const Tensor& values, const Tensor& lengths,
                                                  bool gru, const Tensor& embedding, Tensors cells, std::string scores,
                                                  int64_t heads, double scale, bool smoothing, Tensors attention,
                                                  int64_t features_begin, Tensors outputs, std::vector<int64_t> widths,
                                                  bool feeds_context, int64_t eos, int64_t max_length) {
  const Description d{gru,       embedding, cells,          scores,  heads,  scale,
                      smoothing, attention, features_begin, outputs, widths, feeds_context};
  return with_weights(first_packed(cells), "cells: W_ih", [&](auto type) -> std::tuple<Tensor, Tensor, Tensor> {
    Call<decltype(type)> call(d, cells[0].scalar_type(), tokens, states, context, std::nullopt, keys, values, lengths);
    check_ends(eos, max_length, call.num_tokens());
    Tensor found = allocate_zeros(tokens, {call.rows, max_length});
    Tensor counts = allocate_zeros(tokens, {call.rows});
    Tensor log_probs = allocate_zeros(keys, {call.rows}, ScalarType::Double);
    const cpu::SpellerGreedy greedy{eos, max_length, mutable_data<int64_t>(found), mutable_data<int64_t>(counts),
                                    mutable_data<double>(log_probs)};
    call.spell(&greedy);
    return {found, counts, log_probs};
  });
}

// tokens [N, beam_width, longest], counts and log_probs [N, beam_width], coverage [N, beam_width, frames].
std::tuple<Tensor, Tensor, Tensor, Tensor> beams_of(const std::vector<std::vector<cpu::SpellerBeam::Found>>& found,
                                                    int64_t beam_width, int64_t frames, const Tensor& tokens,
                                                    const Tensor& keys) {
  const int64_t n = int64_t(found.size());
  int64_t longest = 0;
  for (const auto& of_row : found)
    for (const auto& f : of_row) longest = std::max(longest, int64_t(f.tokens.size()));
  Tensor spelled = allocate_zeros(tokens, {n, beam_width, longest});
  Tensor counts = allocate_zeros(tokens, {n, beam_width});
  Tensor log_probs = allocate(keys, {n, beam_width}, ScalarType::Double);
  Tensor coverage = allocate_zeros(keys, {n, beam_width, frames}, ScalarType::Double);
  std::fill_n(mutable_data<double>(log_probs), n * beam_width, -std::numeric_limits<double>::infinity());
  for (int64_t row = 0; row < n; ++row) {
    int64_t at = row * beam_width;
    for (const auto& f : found[row]) {
      std::copy(f.tokens.begin(), f.tokens.end(), mutable_data<int64_t>(spelled) + at * longest);
      std::copy(f.coverage.begin(), f.coverage.end(), mutable_data<double>(coverage) + at * frames);
      mutable_data<int64_t>(counts)[at] = int64_t(f.tokens.size());
      mutable_data<double>(log_probs)[at++] = f.log_prob;
    }
  }
  return {spelled, counts, log_probs, coverage};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> speller_beam(
    const Tensor& tokens, const Tensor& states, const Tensor& context, const Tensor& keys, const Tensor& values,
    const Tensor& lengths, bool gru, const Tensor& embedding, Tensors cells, std::string scores, int64_t heads,
    double scale, bool smoothing, Tensors attention, int64_t features_begin, Tensors outputs,
    std::vector<int64_t> widths, bool feeds_context, int64_t eos, int64_t max_length, int64_t beam_width) {
  const Description d{gru,       embedding, cells,          scores,  heads,  scale,
                      smoothing, attention, features_begin, outputs, widths, feeds_context};
  if (beam_width < 1) invalid("beam_width: expected at least 1, received ", beam_width);
  return with_weights(first_packed(cells), "cells: W_ih", [&](auto type) {
    Call<decltype(type)> call(d, cells[0].scalar_type(), tokens, states, context, std::nullopt, keys, values, lengths,
                              beam_width);
    check_ends(eos, max_length, call.num_tokens());
    cpu::SpellerBeam beam(call.given_rows, call.num_tokens(), call.frames, eos, beam_width);
    for (int64_t step = 0; step < max_length && !beam.empty(); ++step) {
      call.spell(nullptr);
      beam.choose(torch_threads(), data<float>(call.logits), data<float>(call.weights));
      call.go_on(beam.from(), beam.tokens());
    }
    return beams_of(beam.finish(), beam_width, call.frames, tokens, keys);
  });
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"speller_pack", &asrkern::speller_pack>(m);
  asrkern::implement<"speller_step", &asrkern::speller_step>(m);
  asrkern::implement<"speller_greedy", &asrkern::speller_greedy>(m);
  asrkern::implement<"speller_beam", &asrkern::speller_beam>(m);
}
