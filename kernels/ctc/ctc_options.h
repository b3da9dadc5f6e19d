// The options of a beam search under their names in Python. They are declared and checked here, and nowhere else.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/ctc/ctc_beam.h"

namespace asrkern {

// asrkern.ops.ctc_beam_search says what each means.
struct CtcOptions {
  int64_t blank, beam_width, nbest, top_tokens;
  double token_min_logp, beam_prune_logp, blank_penalty;
  bool log_add;
  int64_t history;
  bool check_normalized;

  // Calls f(name, value) for each option.
  template <class F>
  void each(const F& f) {
    f("blank", blank), f("beam_width", beam_width), f("nbest", nbest), f("top_tokens", top_tokens);
    f("token_min_logp", token_min_logp), f("beam_prune_logp", beam_prune_logp), f("blank_penalty", blank_penalty);
    f("log_add", log_add), f("history", history), f("check_normalized", check_normalized);
  }
};

// The options as the search over `vocabulary` tokens takes them. Throws std::invalid_argument for one out of its range.
inline CtcBeamOptions beam_options(const CtcOptions& given, int64_t vocabulary) {
  const auto check = [](bool good, const char* name, const std::string& expected, auto received) {
    if (!good)
      throw std::invalid_argument(std::string(name) + ": expected " + expected + ", received " +
                                  std::to_string(received));
  };
  check(given.blank >= 0 && given.blank < vocabulary, "blank",
        "a token between 0 and " + std::to_string(vocabulary - 1), given.blank);
  check(given.beam_width >= 1 && given.beam_width <= 1 << 20, "beam_width", "1 to 2^20", given.beam_width);
  check(given.nbest >= 1 && given.nbest <= given.beam_width, "nbest",
        "1 to beam_width, " + std::to_string(given.beam_width), given.nbest);
  check(given.top_tokens >= 1, "top_tokens", "at least 1", given.top_tokens);
  check(given.history >= 1, "history", "at least 1", given.history);
  check(given.token_min_logp <= 0, "token_min_logp", "at most 0", given.token_min_logp);
  check(given.beam_prune_logp <= 0, "beam_prune_logp", "at most 0", given.beam_prune_logp);
  check(std::fabs(float(given.blank_penalty)) < kLargestScore, "blank_penalty", "a number between -1e20 and 1e20",
        given.blank_penalty);
  const auto int32 = [](int64_t value) { return int32_t(std::min<int64_t>(value, INT32_MAX)); };
  CtcBeamOptions options{};
  options.row = {int32_t(vocabulary),         int32(given.blank),         int32(given.top_tokens),
                 float(given.token_min_logp), float(given.blank_penalty), given.check_normalized};
  options.beam_width = int32(given.beam_width);
  options.beam_prune_logp = float(given.beam_prune_logp);
  options.add = given.log_add;
  options.history = int32(given.history);
  return options;
}

}  // namespace asrkern
