// The arithmetic of one frame of the beam search, for one prefix or one candidate. ctc_beam_step.h uses it in loops of
// one thread, ctc_beam_team.h in a team of threads.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_beam.h"

namespace asrkern {
namespace ctc_beam {

// What a parent passes on to the extension of it that is in the beam: a score, and that of its best alignment. repeats:
// the extension repeats the parent's last token, so only alignments that end in blank go on to it.
struct Passed {
  float score;
  float best;
};

ASRKERN_HOST_DEVICE inline Passed passed_on(const CtcBeamScores& now, int32_t parent_slot, bool repeats) {
  const float blank = now.best_blank[parent_slot], token = now.best_token[parent_slot];
  return {repeats ? now.blank[parent_slot] : now.total[parent_slot], repeats || blank > token ? blank : token};
}

// The next scores of a prefix that stays in the beam. token, total: its scores in the frame before; from: what its
// parent passes on; row_last, blank: the row's values of its last token and of blank. add: alignments are summed; else
// the best one counts.
template <bool add>
ASRKERN_HOST_DEVICE inline void stay_scores(float token, float total, float from, float gain, float row_last,
                                            float blank, float& next_token, float& next_blank, float& next_total) {
  const float again = token + row_last, extended = from + gain + row_last;
  const float joined = add ? log_add(again, extended) : again > extended ? again : extended;
  const float silent = total + blank;
  const float either = add ? log_add(joined, silent) : joined > silent ? joined : silent;
  next_token = or_log_zero(joined);
  next_blank = or_log_zero(silent);
  next_total = or_log_zero(either);
}

// The same for its best alignments. Returns whether the one that ends in the last token now comes from the parent.
ASRKERN_HOST_DEVICE inline bool stay_best(float best_token, float best_blank, float from, float gain, float row_last,
                                          float blank, float& next_token, float& next_blank) {
  const float again = best_token + row_last, extended = from + gain + row_last;
  const float token = again > extended ? again : extended;
  const float before = best_blank > best_token ? best_blank : best_token;
  const float silent = before + blank;
  next_token = or_log_zero(token);
  next_blank = or_log_zero(silent);
  return extended > again && !is_log_zero(extended);
}

// The best alignment of a prefix of the beam, extended by a token that begins in this frame.
ASRKERN_HOST_DEVICE inline AlignmentNode extended_alignment(const CtcBeam& beam, int32_t slot, int32_t token) {
  if (token == beam.last[slot] || beam.now.best_blank[slot] > beam.now.best_token[slot])
    return {beam.blank_alignment[slot], beam.frame, beam.blank_end[slot]};
  return {beam.token_alignment[slot], beam.frame, beam.frame - 1};
}

// Makes the best alignment of a prefix that ends in blank, from those of the frame before. After all calls of
// extended_alignment, which read them.
ASRKERN_HOST_DEVICE inline void keep_blank_alignment(CtcBeam& beam, const CtcBeamScores& before, int32_t slot) {
  const float token = before.best_token[slot];
  const bool from_token = before.best_blank[slot] <= token && !is_log_zero(token);
  beam.blank_alignment[slot] = from_token ? beam.token_alignment[slot] : beam.blank_alignment[slot];
  beam.blank_end[slot] = from_token ? beam.frame - 1 : beam.blank_end[slot];
}

// Bounds add the same terms as scores in another order, so they round differently. A score above `bar` has a bound
// above below(bar).
ASRKERN_HOST_DEVICE inline float below(float bar) { return bar - 1e-3f - 1e-5f * (bar < 0 ? -bar : bar); }

// The score of a prefix with one more token, without what its context gains.
ASRKERN_HOST_DEVICE inline float acoustic(const CtcBeam& beam, int32_t slot, int32_t token) {
  return (token == beam.last[slot] ? beam.now.blank[slot] : beam.now.total[slot]) + beam.row[token];
}

// What the context gains by a token inside a word. False if the token is not allowed, or the score cannot exceed `bar`.
// credit, before: the hotwords' credit at the node that the token leads to, and at the node that it comes from.
ASRKERN_HOST_DEVICE inline bool extension_gain(const CtcBeam& beam, const ContextModel& model, int32_t slot,
                                               int32_t token, float credit, float before, float bar, float& gain) {
  const PrefixContext& context = beam.context[slot];
  const int32_t lexicon_node = lexicon_next(model, context.lexicon_node, token);
  if (lexicon_node == kNotAllowed) return false;
  gain = inside_gain(look_ahead(model, lexicon_node), look_ahead(model, context.lexicon_node), credit, before);
  if (model.lm_tokens) {
    if (!(acoustic(beam, slot, token) + gain + model.beta > bar)) return false;
    NGramState after;
    gain += lm_token_gain(model, context.lm, token, after);
  }
  return true;
}

// Upper bound of the score of a prefix with one more token, one at a word's boundary. row: the row's value of the
// token.
ASRKERN_HOST_DEVICE inline float boundary_reach(const CtcBeam& beam, const ContextModel& model, int32_t slot,
                                                float row) {
  const float reach = model.begin_reach + (model.lm_tokens ? model.beta : 0.0f);
  return beam.now.total[slot] + beam.end_reach[slot] + reach + row;
}

// What the context gains by a token at a word's boundary, without the end of the word before it. False as above.
ASRKERN_HOST_DEVICE inline bool boundary_gain(const CtcBeam& beam, const ContextModel& model, int32_t slot,
                                              int32_t token, float bar, float& gain) {
  const PrefixContext& context = beam.context[slot];
  int32_t lexicon_node, hotword_node;
  if (!begin_gain(model, context, token, gain, lexicon_node, hotword_node)) return false;
  const float most = acoustic(beam, slot, token) + beam.end_reach[slot] + gain;
  if (!(most + (model.lm_tokens ? model.beta : 0.0f) > bar)) return false;
  if (model.lm_tokens) {
    NGramState after;
    gain += lm_token_gain(model, context.lm, token, after);
  }
  return true;
}

// What the context gains by the end of a prefix's word. Where only one word may end, the gain is kept in end_reach.
ASRKERN_HOST_DEVICE inline float end_gain(CtcBeam& beam, const ContextModel& model, int32_t slot, int32_t choices,
                                          int32_t word) {
  if (beam.end_known[slot] && choices == 1) return beam.end_reach[slot];
  NGramState after;
  const float gain = word_end_gain(model, beam.context[slot], word, after);
  if (choices == 1) {
    beam.end_reach[slot] = gain;
    beam.end_known[slot] = 1;
  }
  return gain;
}

// Prefixes that differ from the best one more than `history` tokens back hardly ever overtake it, but in a long
// recording they may fill the beam. So whenever texts have become longer by another half of `history`, prefixes that
// differ that far back are dropped. It happens after a frame and depends on the frames alone: streams and whole
// utterances agree. How many frames pass between two such checks:
constexpr int32_t kSettleFrames = 64;

// How many tokens all prefixes have to begin with from now on. `best`: the slot of the best prefix.
ASRKERN_HOST_DEVICE inline int32_t tokens_to_settle(const CtcBeam& beam, const CtcBeamOptions& options, int32_t best) {
  const int64_t depth = beam.tree.prefixes[beam.node[best]].depth, history = options.history;
  return int32_t(depth - beam.settled > history + history / 2 ? depth - history : beam.settled);
}

// The node of the first `depth` tokens of a prefix; the tree's root if that holds more.
ASRKERN_HOST_DEVICE inline int32_t beginning(const PrefixTree& tree, int32_t node, int32_t depth) {
  while (tree.prefixes[node].depth > depth && tree.prefixes[node].parent >= 0) node = tree.prefixes[node].parent;
  return node;
}

// The prefix that a candidate becomes, without its node and alignment.
ASRKERN_HOST_DEVICE inline void describe(const CtcBeam& beam, const ContextModel& model, const CtcCandidate& candidate,
                                         CtcEntrant& result) {
  const int32_t slot = candidate.slot, token = candidate.token;
  const PrefixContext& before = beam.context[slot];
  PrefixContext& after = result.context;
  result.word = kNoWord;
  if (model.token_kinds[token] == kInsideWord) {
    after.lm = before.lm;
    after.hotword_node = hotword_next(model, before.hotword_node, token);
    after.lexicon_node = lexicon_next(model, before.lexicon_node, token);
  } else {
    float gain;
    result.word = word_of_choice(model, before.lexicon_node, candidate.choice);
    word_end_gain(model, before, result.word, after.lm);
    begin_gain(model, before, token, gain, after.lexicon_node, after.hotword_node);
  }
  if (model.lm_tokens) lm_token_gain(model, before.lm, token, after.lm);
  result.total = candidate.total;
  result.best = passed_on(beam.now, slot, token == beam.last[slot]).best + beam.row[token] + candidate.gain;
  result.gain = candidate.gain;
  result.token = token;
  result.context_score = beam.context_score[slot] + candidate.gain;
}

}  // namespace ctc_beam
}  // namespace asrkern
