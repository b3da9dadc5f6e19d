// What a beam has found: its prefixes as complete texts, the best first, with the times of their best alignments and
// the confidences of their words.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "kernels/ctc/ctc_ending.h"

namespace asrkern {

struct CtcHypothesis {
  std::vector<CtcToken> tokens;
  double score;     // am_score and what the context is worth
  double am_score;  // log-probability of the text by CTC
};

namespace ctc_beam {

// What is over with the frames that have come.
enum class Over {
  kNothing,    // more frames come
  kUtterance,  // unfinished words must not end, unless there is no other ending; the sentence goes on
  kSentence,   // the language model's sentence ends, too
};

// All endings, the best first.
inline std::vector<Ending> endings(const CtcBeam& beam, const ContextModel& model, Over over) {
  std::vector<Ending> result;
  for (const bool whole_words : {true, false}) {
    for (int32_t slot = 0; slot < beam.count; ++slot) {
      if (over == Over::kNothing) {
        const bool between = beam.context[slot].lexicon_node == kBetweenWords;
        result.push_back(make_ending(beam, slot, between ? kNoWord : kUnknownWord, 0));
        continue;
      }
      const int32_t choices = ending_choices(beam, model, slot, whole_words);
      for (int32_t choice = 0; choice < choices; ++choice)
        result.push_back(ending(beam, model, slot, choice, whole_words, over == Over::kSentence));
    }
    if (!result.empty()) break;
  }
  std::stable_sort(result.begin(), result.end(), [](const Ending& a, const Ending& b) { return a.score > b.score; });
  return result;
}

// Appends to `tokens` the tokens of a prefix that are in the tree.
inline void read_tokens(const CtcBeam& beam, int32_t slot, std::vector<CtcToken>& tokens) {
  TokenWalk walk(beam, slot);
  const size_t before = tokens.size();
  tokens.resize(before + walk.left() - beam.committed);
  for (size_t i = tokens.size(); i-- > before; tokens[i].word = kNoWord) walk.next(tokens[i]);
}

// Of each text its best ending, the likeliest text first. endings: the best first.
inline std::vector<int32_t> rank_texts(std::vector<Ending>& endings, const ContextModel& model, bool add) {
  std::vector<int32_t> firsts;
  std::unordered_map<uint64_t, int32_t> first_of;
  for (int32_t i = 0; i < int32_t(endings.size()); ++i) {
    const auto [known, is_new] = first_of.try_emplace(model.texts ? endings[i].text : uint64_t(i), i);
    if (is_new)
      firsts.push_back(i);
    else
      join(endings[known->second], endings[i], add);
  }
  std::stable_sort(firsts.begin(), firsts.end(),
                   [&](int32_t a, int32_t b) { return endings[a].text_score > endings[b].text_score; });
  return firsts;
}

// The `nbest` likeliest texts, each with the tokens and times of its best prefix. A word's confidence is its posterior
// probability within the beam: the share, by e^score, of the hypotheses that have the word at an overlapping time.
// begun: the tokens of beam.begun, which every hypothesis begins with. Tokens before them are left out.
inline std::vector<CtcHypothesis> results(const CtcBeam& beam, const ContextModel& model, bool add, int32_t nbest,
                                          Over over, const std::vector<CtcToken>& begun = {}) {
  std::vector<Ending> all = endings(beam, model, over);
  // The words of one hypothesis after the other, each from the last to the first.
  std::vector<WordSpan> words;
  std::vector<size_t> begin{0};
  std::vector<double> shares;
  double sum = 0;
  for (Ending& ending : all) {
    WordWalk walk(beam, model, ending.slot, ending.word);
    for (WordSpan word; walk.next(word);) words.push_back(word);
    begin.push_back(words.size());
    ending.text = walk.text.value;
    shares.push_back(std::exp(ending.score - all[0].score));
    sum += shares.back();
  }
  std::vector<CtcHypothesis> found;
  for (const int32_t i : rank_texts(all, model, add)) {
    if (int32_t(found.size()) == nbest) break;
    found.push_back({begun, all[i].text_score, all[i].text_am_score});
    std::vector<CtcToken>& tokens = found.back().tokens;
    read_tokens(beam, all[i].slot, tokens);
    const int32_t before = beam.committed - int32_t(begun.size());
    const WordSpan* const own = words.data() + begin[i];
    std::vector<double> confidences(begin[i + 1] - begin[i]);
    for (size_t k = 0; k < all.size(); ++k) {
      SharedWords shared(own, int32_t(confidences.size()));
      for (size_t w = begin[k]; w < begin[k + 1]; ++w)
        shared.show(words[w], [&](int32_t word) { confidences[word] += shares[k] / sum; });
    }
    for (size_t w = 0; w < confidences.size(); ++w)
      for (int32_t k = own[w].first; k <= own[w].last; ++k) {
        tokens[k - before].word = own[w].word;
        tokens[k - before].confidence = float(confidences[w]);
      }
  }
  return found;
}

// How many tokens all prefixes of the beam begin with. No later frame changes them.
inline int32_t stable_tokens(const CtcBeam& beam) {
  int32_t node = beam.node[0];
  for (int32_t i = 1; i < beam.count; ++i) node = beam.tree.common(node, beam.node[i]);
  return beam.tree.prefixes[node].depth;
}

}  // namespace ctc_beam
}  // namespace asrkern
