// What a beam has found: its prefixes completed as texts, the best first, with the times of their best alignments and
// how sure their words are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/common/ctc_beam.h"

namespace asrkern {

struct CtcToken {
  int32_t token;
  int32_t start;     // frames of the best alignment: the first,
  int32_t end;       // and the one after the last
  int32_t word;      // the word that the token is in: an index of the lexicon or kUnknownWord; kNoWord for spaces
  float confidence;  // of that word; 0 for spaces
};

struct CtcHypothesis {
  std::vector<CtcToken> tokens;
  double score;     // am_score + lm_score
  double am_score;  // log-probability of the tokens by CTC
  double lm_score;  // language model, words, hotwords
};

namespace ctc_beam {

// A prefix of the beam with its last word ended in one way.
struct Ending {
  int32_t slot;
  int32_t word;
  double gain;
  double score;
};

struct WordSpan {
  uint64_t text;  // hash of its tokens
  int32_t word;
  int32_t first, last;  // its tokens
  int32_t start, end;   // its frames
};

// All endings, the best first. final: the utterance is over, so words that the lexicon does not have as they are must
// not end, unless there is no other ending, and the language model ends its sentence.
inline std::vector<Ending> endings(const CtcBeam& beam, const ContextModel& model, bool final) {
  std::vector<Ending> result;
  for (const bool whole_words : {true, false}) {
    for (int32_t slot = 0; slot < beam.count; ++slot) {
      const PrefixContext& context = beam.context[slot];
      const double before = beam.offset + beam.now.total[slot];
      if (!final) {
        result.push_back({slot, context.lexicon_node == kBetweenWords ? kNoWord : kUnknownWord, 0, before});
        continue;
      }
      const int32_t choices = whole_words ? word_choices(model, context.lexicon_node) : 1;
      for (int32_t choice = 0; choice < choices; ++choice) {
        NGramState after = context.lm, ended;
        int32_t word = kUnknownWord;
        double gain = -look_ahead(model, context.lexicon_node) - hotword_credit(model, context.hotword_node);
        if (whole_words) {
          word = word_of_choice(model, context.lexicon_node, choice);
          gain = word_end_gain(model, context, word, after);
        }
        if (model.lm) gain += model.alpha * ngram_score(*model.lm, after, model.lm->eos, ended);
        result.push_back({slot, word, gain, before + gain});
      }
    }
    if (!result.empty()) break;
  }
  std::stable_sort(result.begin(), result.end(), [](const Ending& a, const Ending& b) { return a.score > b.score; });
  return result;
}

inline std::vector<CtcToken> read_tokens(const CtcBeam& beam, int32_t slot) {
  const PrefixTree& tree = beam.tree;
  std::vector<CtcToken> tokens(tree.prefixes[beam.node[slot]].depth);
  const bool blank = beam.now.best_blank[slot] >= beam.now.best_token[slot];
  int32_t alignment = blank ? beam.blank_alignment[slot] : beam.token_alignment[slot];
  int32_t end = blank ? beam.blank_end[slot] + 1 : beam.frame;
  int32_t node = beam.node[slot];
  for (size_t i = tokens.size(); i-- > 0; node = tree.prefixes[node].parent) {
    const AlignmentNode& at = tree.alignments[alignment];
    tokens[i] = {tree.prefixes[node].token, at.start, end, tree.prefixes[node].word, 0};
    end = at.previous_end + 1;
    alignment = at.parent;
  }
  return tokens;
}

// The words of a text; `last_word` is the one that its end ends. Tokens get the words they are in.
inline std::vector<WordSpan> read_words(const ContextModel& model, std::vector<CtcToken>& tokens, int32_t last_word) {
  std::vector<WordSpan> words;
  bool open = false;
  const auto close = [&](int32_t word) {
    if (!open) return;
    WordSpan& span = words.back();
    span.word = word;
    span.end = tokens[span.last].end;
    for (int32_t k = span.first; k <= span.last; ++k) tokens[k].word = word;
    open = false;
  };
  for (int32_t i = 0; i < int32_t(tokens.size()); ++i) {
    const uint8_t kind = model.token_kinds[tokens[i].token];
    if (kind != kInsideWord) {
      const int32_t ended = tokens[i].word;
      tokens[i].word = kNoWord;
      close(ended);
      if (kind == kEndsWord) continue;
    }
    if (!open) words.push_back({0, kNoWord, i, i, tokens[i].start, 0});
    open = true;
    words.back().last = i;
    words.back().text = words.back().text * 0x9e3779b97f4a7c15ull + uint64_t(tokens[i].token) + 1;
  }
  close(last_word);
  return words;
}

// Of each word of `of` the share of hypotheses that have it too, at a time that overlaps, is added to `shares`.
inline void add_shares(const std::vector<WordSpan>& of, const std::vector<WordSpan>& other, double share,
                       std::vector<double>& shares) {
  size_t from = 0;
  for (size_t i = 0; i < of.size(); ++i) {
    while (from < other.size() && other[from].end <= of[i].start) ++from;
    for (size_t k = from; k < other.size() && other[k].start < of[i].end; ++k)
      if (other[k].text == of[i].text) {
        shares[i] += share;
        break;
      }
  }
}

// The `nbest` best hypotheses. A word's confidence is its posterior probability within the beam: the share of e^score
// of the hypotheses that have the same word at an overlapping time.
inline std::vector<CtcHypothesis> results(const CtcBeam& beam, const ContextModel& model, int32_t nbest, bool final) {
  const std::vector<Ending> all = endings(beam, model, final);
  std::vector<std::vector<WordSpan>> words;
  std::vector<CtcHypothesis> found;
  double sum = 0;
  for (const Ending& ending : all) {
    std::vector<CtcToken> tokens = read_tokens(beam, ending.slot);
    words.push_back(read_words(model, tokens, ending.word));
    sum += std::exp(ending.score - all[0].score);
    if (int32_t(found.size()) == nbest) continue;
    const double lm = beam.context_score[ending.slot] + ending.gain;
    found.push_back({std::move(tokens), ending.score, ending.score - lm, lm});
  }
  for (size_t i = 0; i < found.size(); ++i) {
    std::vector<double> shares(words[i].size());
    for (size_t k = 0; k < all.size(); ++k)
      add_shares(words[i], words[k], std::exp(all[k].score - all[0].score) / sum, shares);
    for (size_t w = 0; w < shares.size(); ++w)
      for (int32_t k = words[i][w].first; k <= words[i][w].last; ++k) found[i].tokens[k].confidence = float(shares[w]);
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
