// Beam search of a speller: the kernel's steps, and between them the choice of the hypotheses that go on.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "csrc/ops/speller_call.h"

namespace asrkern {

// The best `beam_width` hypotheses of each given row. One that ends leaves the beam, which becomes narrower by one, so
// only those that go on are computed; the rows of all beams stand one after another.
template <class W>
class SpellerBeam {
 public:
  // call: with room for beam_width copies.
  SpellerBeam(Call<W>& call, int64_t eos, int64_t max_length, int64_t beam_width)
      : call_(call), eos_(eos), max_length_(max_length), beam_width_(beam_width), found_(call.given_rows) {}

  void search() {
    for (int64_t i = 0; i < call_.given_rows; ++i) live_.push_back({i, kRoot, 0.0});
    coverage_.assign(live_.size() * call_.frames, 0.0);
    for (int64_t step = 0; step < max_length_ && !live_.empty(); ++step) {
      call_.spell(nullptr);
      choose();
    }
    for (size_t row = 0; row < live_.size(); ++row) add(live_[row], &coverage_[row * call_.frames]);
  }

  // What has been found, in this order: tokens [N, beam_width, longest], counts and log_probs [N, beam_width], coverage
  // [N, beam_width, frames].
  std::tuple<Tensor, Tensor, Tensor, Tensor> results(const Tensor& tokens, const Tensor& keys) const {
    int64_t longest = 0;
    for (const auto& of_row : found_)
      for (const Found& f : of_row) longest = std::max(longest, int64_t(f.tokens.size()));
    const int64_t n = call_.given_rows;
    Tensor spelled = allocate_zeros(tokens, {n, beam_width_, longest});
    Tensor counts = allocate_zeros(tokens, {n, beam_width_});
    Tensor log_probs = allocate(keys, {n, beam_width_}, ScalarType::Double);
    Tensor coverage = allocate_zeros(keys, {n, beam_width_, call_.frames}, ScalarType::Double);
    std::fill_n(mutable_data<double>(log_probs), n * beam_width_, -std::numeric_limits<double>::infinity());
    for (int64_t row = 0; row < n; ++row) {
      int64_t at = row * beam_width_;
      for (const Found& f : found_[row]) {
        std::copy(f.tokens.begin(), f.tokens.end(), mutable_data<int64_t>(spelled) + at * longest);
        std::copy(f.coverage.begin(), f.coverage.end(), mutable_data<double>(coverage) + at * call_.frames);
        mutable_data<int64_t>(counts)[at] = int64_t(f.tokens.size());
        mutable_data<double>(log_probs)[at++] = f.log_prob;
      }
    }
    return {spelled, counts, log_probs, coverage};
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
  struct Found {
    std::vector<int64_t> tokens;
    double log_prob;
    std::vector<double> coverage;
  };

  // Of equal ones, that of the first row, then of the first token.
  static bool is_better(const Candidate& a, const Candidate& b) {
    if (a.log_prob != b.log_prob) return a.log_prob > b.log_prob;
    return a.row != b.row ? a.row < b.row : a.token < b.token;
  }

  const float* logits(size_t row) const { return data<float>(call_.logits) + int64_t(row) * call_.num_tokens(); }

  void add(const Live& live, const double* coverage) {
    Found f{{}, live.log_prob, {coverage, coverage + call_.frames}};
    for (int64_t node = live.node; node != kRoot; node = nodes_[node].parent) f.tokens.push_back(nodes_[node].token);
    std::reverse(f.tokens.begin(), f.tokens.end());
    found_[live.origin].push_back(std::move(f));
  }

  // After a step of the live rows.
  void choose() {
    std::vector<double> totals(live_.size());
    struct Task {
      const SpellerBeam* beam;
      double* totals;
    } task{this, totals.data()};
    torch_threads().run(
        int64_t(totals.size()),
        [](int64_t begin, int64_t end, void* context) {
          const Task& t = *static_cast<Task*>(context);
          for (int64_t row = begin; row < end; ++row) t.totals[row] = t.beam->log_sum_exp(t.beam->logits(size_t(row)));
        },
        &task);
    const float* weights = data<float>(call_.weights);
    for (size_t i = 0; i < coverage_.size(); ++i) coverage_[i] += weights[i];

    std::vector<Live> next;
    std::vector<int64_t> from, tokens;
    std::vector<double> coverage;
    for (size_t begin = 0, end; begin < live_.size(); begin = end) {
      const int64_t origin = live_[begin].origin;
      for (end = begin; end < live_.size() && live_[end].origin == origin;) ++end;
      for (const Candidate& c : best(begin, end, totals)) {
        const Live& before = live_[c.row];
        const double* seen = &coverage_[c.row * call_.frames];
        nodes_.push_back({c.token, before.node});
        const Live after{origin, int64_t(nodes_.size()) - 1, c.log_prob};
        // What is no number goes no further: there is nothing to choose from.
        if (c.token == eos_ || std::isnan(c.log_prob)) {
          add(after, seen);
        } else {
          next.push_back(after);
          from.push_back(c.row);
          tokens.push_back(c.token);
          coverage.insert(coverage.end(), seen, seen + call_.frames);
        }
      }
    }
    call_.go_on(from, tokens);
    live_.swap(next);
    coverage_.swap(coverage);
  }

  // NaN where the logits give no probabilities.
  double log_sum_exp(const float* logits) const {
    double highest = -std::numeric_limits<double>::infinity(), total = 0;
    for (int64_t i = 0; i < call_.num_tokens(); ++i) {
      if (std::isnan(logits[i])) return logits[i];
      highest = std::max(highest, double(logits[i]));
    }
    for (int64_t i = 0; i < call_.num_tokens(); ++i) total += std::exp(double(logits[i]) - highest);
    return highest + std::log(total);
  }

  // The best continuations of the live rows [begin, end), which have one origin, the best first. If one of the rows has
  // no numbers, that row's first token with NaN.
  std::vector<Candidate> best(size_t begin, size_t end, const std::vector<double>& totals) const {
    const size_t room = size_t(beam_width_) - found_[live_[begin].origin].size();
    std::vector<Candidate> heap;  // the worst of them first
    for (size_t row = begin; row < end; ++row) {
      if (std::isnan(totals[row])) return {{totals[row], int64_t(row), 0}};
      const float* of_row = logits(row);
      const double base = live_[row].log_prob - totals[row];
      for (int64_t token = 0; token < call_.num_tokens(); ++token) {
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

  Call<W>& call_;
  const int64_t eos_, max_length_, beam_width_;
  std::vector<Live> live_;        // [rows] of one origin one after another
  std::vector<double> coverage_;  // [rows, frames] the sum of their weights
  std::vector<Node> nodes_;
  std::vector<std::vector<Found>> found_;  // of each given row
};

}  // namespace asrkern
