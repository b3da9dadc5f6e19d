// Beam search of a speller: between two steps of speller.h, which hypotheses go on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/common/cpu/team.h"

namespace asrkern::cpu {
namespace {

// The best `beam_width` hypotheses of each of the rows given. One that ends leaves the beam, which becomes narrower by
// one, so only those that go on are computed; the rows of all beams stand one after another.
class SpellerBeam {
 public:
  struct Found {
    std::vector<int64_t> tokens;   // eos, too
    double log_prob;               // the sum over the tokens
    std::vector<double> coverage;  // [frames] the sum of the weights over all steps
  };

  SpellerBeam(int64_t rows, int64_t num_tokens, int64_t frames, int64_t eos, int64_t beam_width)
      : num_tokens_(num_tokens), frames_(frames), eos_(eos), beam_width_(beam_width), found_(rows) {
    for (int64_t i = 0; i < rows; ++i) live_.push_back({i, kRoot, 0.0});
    coverage_.assign(rows * frames, 0.0);
  }

  // The next step's row i is what row from()[i] of the step before has become, and takes tokens()[i].
  const std::vector<int64_t>& from() const { return from_; }
  const std::vector<int64_t>& tokens() const { return tokens_; }
  bool empty() const { return live_.empty(); }

  // After a step of the live rows: logits [rows, num_tokens], weights [rows, frames].
  void choose(const ThreadPool& pool, const float* logits, const float* weights) {
    std::vector<double> totals(live_.size());
    parallel_for(pool, int64_t(live_.size()),
                 [&](int64_t row) { totals[row] = log_sum_exp(logits + row * num_tokens_); });
    for (size_t i = 0; i < coverage_.size(); ++i) coverage_[i] += weights[i];

    std::vector<Live> next;
    std::vector<double> coverage;
    from_.clear(), tokens_.clear();
    for (size_t begin = 0, end; begin < live_.size(); begin = end) {
      const int64_t origin = live_[begin].origin;
      for (end = begin; end < live_.size() && live_[end].origin == origin;) ++end;
      for (const Candidate& c : best(begin, end, logits, totals)) {
        const double* seen = &coverage_[c.row * frames_];
        nodes_.push_back({c.token, live_[c.row].node});
        const Live after{origin, int64_t(nodes_.size()) - 1, c.log_prob};
        // What is no number goes no further: there is nothing to choose from.
        if (c.token == eos_ || std::isnan(c.log_prob)) {
          add(after, seen);
        } else {
          next.push_back(after);
          from_.push_back(c.row);
          tokens_.push_back(c.token);
          coverage.insert(coverage.end(), seen, seen + frames_);
        }
      }
    }
    live_.swap(next);
    coverage_.swap(coverage);
  }

  // Of each row given, those that have ended, in this order, then those that have not.
  const std::vector<std::vector<Found>>& finish() {
    for (size_t row = 0; row < live_.size(); ++row) add(live_[row], &coverage_[row * frames_]);
    live_.clear();
    return found_;
  }

 private:
  static constexpr int64_t kRoot = -1;

  // The last token of a hypothesis; `parent` is a node or kRoot.
  struct Node {
    int64_t token, parent;
  };
  struct Live {
    int64_t origin, node;
    double log_prob;
  };
  struct Candidate {
    double log_prob;
    int64_t row, token;
  };
  // Of equal ones, that of the first row, then of the first token.
  static bool is_better(const Candidate& a, const Candidate& b) {
    if (a.log_prob != b.log_prob) return a.log_prob > b.log_prob;
    return a.row != b.row ? a.row < b.row : a.token < b.token;
  }

  void add(const Live& live, const double* coverage) {
    Found f{{}, live.log_prob, {coverage, coverage + frames_}};
    for (int64_t node = live.node; node != kRoot; node = nodes_[node].parent) f.tokens.push_back(nodes_[node].token);
    std::reverse(f.tokens.begin(), f.tokens.end());
    found_[live.origin].push_back(std::move(f));
  }

  // NaN where the logits give no probabilities.
  double log_sum_exp(const float* logits) const {
    double highest = -std::numeric_limits<double>::infinity(), total = 0;
    for (int64_t i = 0; i < num_tokens_; ++i) {
      if (std::isnan(logits[i])) return logits[i];
      highest = std::max(highest, double(logits[i]));
    }
    for (int64_t i = 0; i < num_tokens_; ++i) total += std::exp(double(logits[i]) - highest);
    return highest + std::log(total);
  }

  // The best continuations of the live rows [begin, end), which have one origin, the best first. If one of the rows has
  // no numbers, that row's first token with NaN.
  std::vector<Candidate> best(size_t begin, size_t end, const float* logits, const std::vector<double>& totals) const {
    const size_t room = size_t(beam_width_) - found_[live_[begin].origin].size();
    std::vector<Candidate> heap;  // the worst of them first
    for (size_t row = begin; row < end; ++row) {
      if (std::isnan(totals[row])) return {{totals[row], int64_t(row), 0}};
      const float* of_row = logits + int64_t(row) * num_tokens_;
      const double base = live_[row].log_prob - totals[row];
      for (int64_t token = 0; token < num_tokens_; ++token) {
        const Candidate candidate{base + of_row[token], int64_t(row), token};
        if (!std::isfinite(candidate.log_prob)) continue;
        if (heap.size() == room) {
          if (!is_better(candidate, heap.front())) continue;
          std::pop_heap(heap.begin(), heap.end(), is_better);
          heap.pop_back();
        }
        heap.push_back(candidate);
        std::push_heap(heap.begin(), heap.end(), is_better);
      }
    }
    std::sort(heap.begin(), heap.end(), is_better);
    return heap;
  }

  const int64_t num_tokens_, frames_, eos_, beam_width_;
  std::vector<Live> live_;        // [rows] of one origin one after another
  std::vector<double> coverage_;  // [rows, frames] the sum of their weights
  std::vector<int64_t> from_, tokens_;
  std::vector<Node> nodes_;
  std::vector<std::vector<Found>> found_;  // of each given row
};

}  // namespace
}  // namespace asrkern::cpu
