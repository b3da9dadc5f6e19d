// What a beam has found: its prefixes completed as texts, the best first, with the times of their best alignments and
// how sure their words are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/common/ctc_ending.h"

namespace asrkern {

struct CtcHypothesis {
  std::vector<CtcToken> tokens;
  double score;     // am_score, language model, words, hotwords
  double am_score;  // log-probability of the tokens by CTC
};

namespace ctc_beam {

// All endings, the best first. final: the utterance is over, so words that the lexicon does not have as they are must
// not end, unless there is no other ending.
inline std::vector<Ending> endings(const CtcBeam& beam, const ContextModel& model, bool final) {
  std::vector<Ending> result;
  for (const bool whole_words : {true, false}) {
    for (int32_t slot = 0; slot < beam.count; ++slot) {
      if (!final) {
        const bool between = beam.context[slot].lexicon_node == kBetweenWords;
        result.push_back({slot, between ? kNoWord : kUnknownWord, 0, beam.offset + beam.now.total[slot]});
        continue;
      }
      const int32_t choices = ending_choices(beam, model, slot, whole_words);
      for (int32_t choice = 0; choice < choices; ++choice)
        result.push_back(ending(beam, model, slot, choice, whole_words));
    }
    if (!result.empty()) break;
  }
  std::stable_sort(result.begin(), result.end(), [](const Ending& a, const Ending& b) { return a.score > b.score; });
  return result;
}

// From the last to the first.
inline std::vector<WordSpan> read_words(const CtcBeam& beam, const ContextModel& model, const Ending& ending) {
  std::vector<WordSpan> words;
  WordWalk walk(beam, model, ending.slot, ending.word);
  for (WordSpan span; walk.next(span);) words.push_back(span);
  return words;
}

inline std::vector<CtcToken> read_tokens(const CtcBeam& beam, int32_t slot) {
  TokenWalk walk(beam, slot);
  std::vector<CtcToken> tokens(walk.left());
  for (size_t i = tokens.size(); i-- > 0; tokens[i].word = kNoWord) walk.next(tokens[i]);
  return tokens;
}

// The `nbest` best hypotheses. A word's confidence is its posterior probability within the beam: the share of e^score
// of the hypotheses that have the same word at an overlapping time.
inline std::vector<CtcHypothesis> results(const CtcBeam& beam, const ContextModel& model, int32_t nbest, bool final) {
  const std::vector<Ending> all = endings(beam, model, final);
  std::vector<std::vector<WordSpan>> words;
  std::vector<double> shares;
  double sum = 0;
  for (const Ending& ending : all) {
    words.push_back(read_words(beam, model, ending));
    shares.push_back(std::exp(ending.score - all[0].score));
    sum += shares.back();
  }
  std::vector<CtcHypothesis> found;
  for (size_t i = 0; i < all.size() && int32_t(i) < nbest; ++i) {
    const double lm = beam.context_score[all[i].slot] + all[i].gain;
    found.push_back({read_tokens(beam, all[i].slot), all[i].score, all[i].score - lm});
    std::vector<double> confidences(words[i].size());
    for (size_t k = 0; k < all.size(); ++k) {
      SharedWords shared(words[i].data(), int32_t(words[i].size()));
      for (const WordSpan& other : words[k])
        shared.show(other, [&](int32_t word) { confidences[word] += shares[k] / sum; });
    }
    for (size_t w = 0; w < words[i].size(); ++w)
      for (int32_t k = words[i][w].first; k <= words[i][w].last; ++k) {
        found[i].tokens[k].word = words[i][w].word;
        found[i].tokens[k].confidence = float(confidences[w]);
      }
  }
  return found;
}

// How many tokens all prefixes of the beam begin with: no later frame changes them.
inline int32_t stable_tokens(const CtcBeam& beam) {
  int32_t node = beam.node[0];
  for (int32_t i = 1; i < beam.count; ++i) node = beam.tree.common(node, beam.node[i]);
  return beam.tree.prefixes[node].depth;
}

}  // namespace ctc_beam
}  // namespace asrkern
