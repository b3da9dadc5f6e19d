// The best alignment of a given text under CTC (Viterbi over the states of ctc_align.h) in memory that grows with the
// square root of the frames: scores are kept at the beginning of each block of frames, and what led to them is computed
// again, block by block, from the last to the first.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace asrkern {

class CtcBestPath {
 public:
  // log_priors: [vocabulary], subtracted from each frame, or null. block: frames of a block; 0 chooses.
  CtcBestPath(const float* log_probs, int64_t frames, int64_t vocabulary, const int64_t* tokens, int64_t count,
              int64_t blank, const float* log_priors, int64_t block)
      : log_probs_(log_probs),
        log_priors_(log_priors),
        tokens_(tokens),
        frames_(frames),
        vocabulary_(vocabulary),
        count_(count),
        blank_(blank),
        block_(block ? block : chosen_block(frames, count)),
        emissions_(count),
        skip_costs_(count) {
    // A token may follow a different one without a blank between them.
    for (int64_t i = 0; i < count; ++i) skip_costs_[i] = i > 0 && tokens[i] != tokens[i - 1] ? 0 : -kInfinity;
  }

  // Writes the token of each frame, which may be blank, to path [frames]. False if no alignment is possible.
  bool find(int64_t* path) {
    const int64_t blocks = (frames_ + block_ - 1) / block_;
    std::vector<Scores> begins(blocks, Scores(0));
    Scores scores(count_), next(count_);
    for (int64_t t = 0; t < frames_; ++t) {
      if (t % block_ == 0) begins[t / block_] = scores;
      step(t, scores, next, nullptr);
      std::swap(scores, next);
    }
    const double by_blank = scores.blanks[count_], by_token = count_ ? scores.token(count_ - 1) : -kInfinity;
    if (std::max(by_blank, by_token) == -kInfinity) return false;
    int64_t state = 2 * count_ - (by_token > by_blank);
    std::vector<uint8_t> choices(std::min(block_, frames_) * width());
    for (int64_t b = blocks; b-- > 0;) {
      const int64_t first = b * block_, last = std::min(frames_, first + block_);
      std::swap(scores, begins[b]);
      begins.pop_back();
      // Later frames reached further: what this block does not reach has to be impossible again.
      std::fill(next.blanks.begin(), next.blanks.end(), -kInfinity);
      std::fill(next.tokens.begin(), next.tokens.end(), -kInfinity);
      for (int64_t t = first; t < last; ++t) {
        step(t, scores, next, choices.data() + (t - first) * width());
        std::swap(scores, next);
      }
      for (int64_t t = last; t-- > first;) {
        path[t] = state % 2 ? tokens_[state / 2] : blank_;
        const uint8_t* row = choices.data() + (t - first) * width();
        state -= state % 2 ? row[count_ + 1 + state / 2] : row[state / 2];
      }
    }
    return true;
  }

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  // Bytes of choices up to which a single block takes little memory.
  static constexpr int64_t kSmall = 1 << 24;

  // Of the best alignments that end in each blank and, from the second place on, in each token. What is in front of the
  // first token is impossible.
  struct Scores {
    explicit Scores(int64_t count) : blanks(count + 1, -kInfinity), tokens(count + 1, -kInfinity) {}
    double token(int64_t i) const { return tokens[i + 1]; }
    std::vector<double> blanks, tokens;
  };

  // As many bytes of choices in a block as of scores at the beginnings of blocks.
  static int64_t chosen_block(int64_t frames, int64_t count) {
    if (frames <= kSmall / (2 * count + 1)) return std::max<int64_t>(frames, 1);
    return std::max<int64_t>(1, std::llround(std::sqrt(double(sizeof(double)) * double(frames))));
  }

  int64_t width() const { return 2 * count_ + 1; }

  double emission(const float* row, int64_t token) const {
    return double(row[token]) - (log_priors_ ? double(log_priors_[token]) : 0);
  }

  // One frame: from the scores before it to those after. choices: null, or for each blank and then for each token how
  // many states back the best alignment was in the frame before. Of equals the one that stays, then the nearer one.
  void step(int64_t t, const Scores& from, Scores& to, uint8_t* choices) {
    const float* row = log_probs_ + t * vocabulary_;
    const double blank = emission(row, blank_);
    if (t == 0) {
      // Nothing is before the first frame: a blank, or the first token.
      std::fill(to.blanks.begin(), to.blanks.end(), -kInfinity);
      std::fill(to.tokens.begin(), to.tokens.end(), -kInfinity);
      to.blanks[0] = blank;
      if (count_) to.tokens[1] = emission(row, tokens_[0]);
      if (choices) std::fill(choices, choices + width(), uint8_t(0));
      return;
    }
    // Tokens that frames enough are left for, and those that frames enough have passed for. Others are never asked for.
    const int64_t lo = std::max<int64_t>(0, count_ - (frames_ - t)), hi = std::min(count_, t + 1);
    for (int64_t i = lo; i < hi; ++i) emissions_[i] = emission(row, tokens_[i]);
    const double *b = from.blanks.data(), *a = from.tokens.data(), *e = emissions_.data(), *cost = skip_costs_.data();
    double *to_b = to.blanks.data(), *to_a = to.tokens.data() + 1;
    // a[i] is the token before blank i and before token i.
    for (int64_t i = lo; i <= hi; ++i) to_b[i] = std::max(b[i], a[i]) + blank;
    for (int64_t i = lo; i < hi; ++i) to_a[i] = std::max(std::max(a[i + 1], b[i]), a[i] + cost[i]) + e[i];
    if (!choices) return;
    uint8_t *choice_b = choices, *choice_a = choices + count_ + 1;
    for (int64_t i = lo; i <= hi; ++i) choice_b[i] = a[i] > b[i];
    for (int64_t i = lo; i < hi; ++i) {
      const double stay = a[i + 1], near = b[i], skip = a[i] + cost[i];
      choice_a[i] = (skip > near) & (skip > stay) ? 2 : near > stay;
    }
  }

  const float* log_probs_;
  const float* log_priors_;
  const int64_t* tokens_;
  const int64_t frames_, vocabulary_, count_, blank_, block_;
  std::vector<double> emissions_, skip_costs_;
};

}  // namespace asrkern
