// One frame of the beam search of ctc_beam.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/ctc_beam_parts.h"
#include "kernels/common/ranking.h"

// Marks a function that is compiled for several vector units, of which the loader takes the widest there is. Without
// contraction all give the same bits. It takes GNU's indirect functions.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define ASRKERN_VECTOR_COPIES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ASRKERN_VECTOR_COPIES
#endif

namespace asrkern {
namespace ctc_beam {

// The scores of prefixes that stay. The results are said to be apart from the rest, so that it vectorises.
template <bool add>
ASRKERN_VECTOR_COPIES void join(int32_t count, const float* token, const float* total, const float* from,
                                const float* gain, const float* row_last, float blank, float* __restrict__ next_token,
                                float* __restrict__ next_blank, float* __restrict__ next_total) {
  for (int32_t i = 0; i < count; ++i)
    stay_scores<add>(token[i], total[i], from[i], gain[i], row_last[i], blank, next_token[i], next_blank[i],
                     next_total[i]);
}

// The prefixes of the beam one frame later, without new tokens, into `next`: blank, the last token again, or the last
// token as an extension of the parent.
inline void stay(CtcBeam& beam, const CtcBeamOptions& options) {
  const int32_t count = beam.count, sentinel = options.beam_width;
  const CtcBeamScores now = beam.now, next = beam.next;
  for (int32_t i = 0; i <= sentinel; ++i) beam.children[i] = 0;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t slot = beam.parent[i] < 0 ? -1 : beam.tree.prefixes[beam.parent[i]].slot;
    const int32_t p = slot < 0 ? sentinel : slot;
    const Passed passed = passed_on(now, p, beam.last[p] == beam.last[i]);
    beam.parent_slot[i] = p;
    beam.children[p] |= 1ull << (beam.last[i] & 63);
    beam.from[i] = passed.score;
    beam.best_from[i] = passed.best;
    beam.row_last[i] = beam.row[beam.last[i]];
  }
  (options.add ? join<true> : join<false>)(count, now.token, now.total, beam.from, beam.gain, beam.row_last,
                                           beam.row[options.row.blank], next.token, next.blank, next.total);
}

// The best alignments of the prefixes that stay. Those of all parents are read before any is changed.
inline void stay_aligned(CtcBeam& beam, const CtcBeamOptions& options) {
  const int32_t count = beam.count;
  const CtcBeamScores now = beam.now, next = beam.next;
  const float blank = beam.row[options.row.blank];
  const float *from = beam.best_from, *gain = beam.gain, *row_last = beam.row_last;
  for (int32_t i = 0; i < count; ++i)
    beam.new_alignment[i] = stay_best(now.best_token[i], now.best_blank[i], from[i], gain[i], row_last[i], blank,
                                      next.best_token[i], next.best_blank[i])
                                ? 0
                                : -1;
  for (int32_t i = 0; i < count; ++i)
    if (beam.new_alignment[i] >= 0)
      beam.new_alignment[i] = beam.tree.add_alignment(extended_alignment(beam, beam.parent_slot[i], beam.last[i]));
  for (int32_t i = 0; i < count; ++i) keep_alignments(beam, now, i, beam.new_alignment[i]);
}

// Keeps the beam_width best of the prefixes that stay and the candidates; the first of equals. Returns the score that a
// further candidate must exceed.
inline float select(CtcBeam& beam, const CtcBeamOptions& options, float limit) {
  const int32_t width = options.beam_width, stays = beam.count;
  int32_t ranked = 0;
  for (int32_t i = 0; i < stays; ++i)
    if (beam.next.total[i] >= limit) beam.ranking[ranked++] = beam.next.total[i];
  for (int32_t i = 0; i < beam.candidate_count; ++i)
    if (beam.candidates[i].total >= limit) beam.ranking[ranked++] = beam.candidates[i].total;
  int32_t equals = ranked;  // how many of those at the limit itself are kept
  if (ranked > width) limit = nth_largest(beam.ranking, ranked, width, equals);
  for (int32_t i = 0; i < stays; ++i) {
    const float total = beam.next.total[i];
    if (total < limit || (total == limit && equals-- <= 0)) beam.next.total[i] = kLogZero;
  }
  int32_t kept = 0;
  for (int32_t i = 0; i < beam.candidate_count; ++i) {
    const float total = beam.candidates[i].total;
    if (total > limit || (total == limit && equals-- > 0)) beam.candidates[kept++] = beam.candidates[i];
  }
  beam.candidate_count = kept;
  return limit;
}

// Tokens other than blank whose row exceeds `least`, the likeliest first, apart by what they do to words.
inline void order_tokens(CtcBeam& beam, const ContextModel& model, const CtcBeamOptions& options, float least,
                         int32_t& inside, int32_t& boundary) {
  const float* row = beam.row;
  inside = boundary = 0;
  for (int32_t v = 0; v < options.row.vocabulary; ++v) {
    if (!(row[v] > least) || v == options.row.blank) continue;
    if (model.token_kinds[v] == kInsideWord)
      beam.inside[inside++] = v;
    else
      beam.boundary[boundary++] = v;
  }
  const auto likelihood = [row](int32_t token) { return row[token]; };
  order_by_worth(beam.inside, inside, likelihood);
  order_by_worth(beam.boundary, boundary, likelihood);
}

// The tokens of `inside` by what they are worth at the beginning of a word, where phrases begin; the most first.
inline void order_begins(CtcBeam& beam, const ContextModel& model, int32_t count) {
  for (int32_t k = 0; k < count; ++k) {
    const int32_t token = beam.inside[k];
    beam.begins[k] = token;
    beam.begin_credit[token] = hotword_credit(model, hotword_next(model, kHotwordStart, token));
  }
  const float *row = beam.row, *credit = beam.begin_credit;
  order_by_worth(beam.begins, count, [row, credit](int32_t token) { return row[token] + credit[token]; });
}

inline bool in_beam(const CtcBeam& beam, int32_t slot, int32_t token, int32_t word) {
  if (!(beam.children[slot] >> (token & 63) & 1)) return false;
  const int32_t node = beam.tree.find_child(beam.node[slot], token, word);
  return node >= 0 && beam.tree.prefixes[node].slot >= 0;
}

// The extensions of the beam by one token that exceed `bar`; raises it when there are more than needed.
struct Collector {
  CtcBeam& beam;
  const ContextModel& model;
  const CtcBeamOptions& options;
  float bar;
  bool begins_known = false;  // the order of begins

  void push(const CtcCandidate& candidate) {
    beam.candidates[beam.candidate_count++] = candidate;
    if (beam.candidate_count < 4 * options.beam_width) return;
    const float limit = select(beam, options, bar);
    bar = limit > bar ? limit : bar;
  }

  void inside(int32_t slot, int32_t count) {
    const float total = beam.now.total[slot];
    if (count == 0 || !(total + beam.phrase_reach[slot] + beam.row[beam.inside[0]] > bar)) return;
    const PrefixContext& context = beam.context[slot];
    const TokenTrie& phrases = model.hotwords.trie;
    const int32_t node = model.hotwords.nodes ? context.hotword_node : kHotwordNone;
    // Where any phrase may begin, what it is worth is the same for every prefix.
    const bool begins = node == kHotwordStart, within = node > kHotwordStart && phrases.edge_mask[node];
    if (begins && !begins_known) {
      order_begins(beam, model, count);
      begins_known = true;
    }
    const int32_t* tokens = begins ? beam.begins : beam.inside;
    const float base = total + beam.inside_reach[slot], before = hotword_credit(model, context.hotword_node);
    const float unlisted = unlisted_gain(model, context);
    const uint64_t listed = listed_tokens(model, context);
    for (int32_t k = 0; k < count; ++k) {
      const int32_t token = tokens[k];
      const float credit = begins ? beam.begin_credit[token] : 0.0f;
      if (!(base + (beam.row[token] + credit) > bar)) break;
      if (within && phrases.has(node, token)) continue;
      if (listed >> (token & 63) & 1)
        extend(slot, token, begins ? hotword_next(model, kHotwordStart, token) : kHotwordNone);
      else
        offer(slot, token, unlisted + credit - before);
    }
    // Tokens that a phrase goes on with have a reach of their own, so that it does not count for all.
    if (!within) return;
    for (int32_t edge = phrases.edge_begin[node]; edge < phrases.edge_begin[node + 1]; ++edge) {
      const int32_t token = phrases.edge_token[edge], next = phrases.edge_target[edge];
      if (base + model.hotwords.credit[next] + beam.row[token] > bar && model.token_kinds[token] == kInsideWord)
        extend(slot, token, next);
    }
  }

  void extend(int32_t slot, int32_t token, int32_t hotword_node) {
    float gain;
    if (extension_gain(beam, model, slot, token, hotword_node, bar, gain)) offer(slot, token, gain);
  }

  void offer(int32_t slot, int32_t token, float gain) {
    const float total = acoustic(beam, slot, token) + gain;
    if (total > bar && !in_beam(beam, slot, token, kNoWord)) push({total, gain, slot, token, 0});
  }

  void boundary(int32_t slot, int32_t count) {
    const int32_t lexicon_node = beam.context[slot].lexicon_node;
    for (int32_t k = 0; k < count; ++k) {
      const int32_t token = beam.boundary[k];
      if (!(boundary_reach(beam, model, slot, beam.row[token]) > bar)) return;
      float begin;
      if (!boundary_gain(beam, model, slot, token, bar, begin)) continue;
      const int32_t choices = word_choices(model, lexicon_node);
      for (int32_t choice = 0; choice < choices; ++choice) {
        const int32_t word = word_of_choice(model, lexicon_node, choice);
        const float gain = end_gain(beam, model, slot, choices, word) + begin;
        const float total = acoustic(beam, slot, token) + gain;
        if (total > bar && !in_beam(beam, slot, token, word)) push({total, gain, slot, token, choice});
      }
    }
  }
};

// Collects the extensions that exceed `bar`. Whether they and the prefixes that stay fill a beam above it.
inline bool collect_above(CtcBeam& beam, const ContextModel& model, const CtcBeamOptions& options, float bar,
                          int32_t inside, int32_t boundary) {
  beam.candidate_count = 0;
  Collector collector{beam, model, options, bar};
  for (int32_t i = 0; i < beam.count; ++i) {
    collector.inside(i, inside);
    collector.boundary(i, boundary);
  }
  int32_t above = beam.candidate_count;
  for (int32_t i = 0; i < beam.count; ++i) above += beam.next.total[i] >= bar;
  return collector.bar > bar || above >= options.beam_width;
}

// The extensions that may be among the best, in the order that decides between equals.
inline void collect(CtcBeam& beam, const ContextModel& model, const CtcBeamOptions& options) {
  const int32_t count = beam.count;
  float best = kLogZero, worst = 0, base = 2 * kLogZero, best_now = kLogZero;
  for (int32_t i = 0; i < count; ++i) {
    const float total = beam.next.total[i], total_now = beam.now.total[i];
    best = total > best ? total : best;
    best_now = total_now > best_now ? total_now : best_now;
    worst = i == 0 || total < worst ? total : worst;
    const float boundary = beam.end_reach[i] + model.begin_reach;
    const float reach = beam.phrase_reach[i] > boundary ? beam.phrase_reach[i] : boundary;
    base = total_now + reach > base ? total_now + reach : base;
  }
  if (model.lm_tokens) base += model.beta > 0 ? model.beta : 0.0f;
  float bar = 0.5f * kLogZero;
  if (best + options.beam_prune_logp > bar) bar = best + options.beam_prune_logp;
  if (count == options.beam_width && worst > bar) bar = worst;
  int32_t inside, boundary;
  order_tokens(beam, model, options, bar - base > 0.5f * kLogZero ? bar - base : 0.5f * kLogZero, inside, boundary);
  // The last place is mostly about as far behind the best as in the frame before. What a guess leaves out when it fills
  // the beam could not have been among the best; else all is collected again.
  constexpr float MARGIN = 4.0f;
  if (count == options.beam_width && inside > 0) {
    const float extended = best_now + beam.row[beam.inside[0]];
    const float guess = (extended > best ? extended : best) - beam.spread - MARGIN;
    if (guess > bar && collect_above(beam, model, options, guess, inside, boundary)) return;
  }
  collect_above(beam, model, options, bar, inside, boundary);
}

// The prefix that a candidate is, in the tree.
inline CtcEntrant entrant(CtcBeam& beam, const ContextModel& model, const CtcCandidate& candidate) {
  CtcEntrant result;
  describe(beam, model, candidate, result);
  result.alignment = beam.tree.add_alignment(extended_alignment(beam, candidate.slot, candidate.token));
  const int32_t parent = beam.node[candidate.slot];
  result.node = beam.tree.find_child(parent, candidate.token, result.word);
  if (result.node < 0) result.node = beam.tree.add_child(parent, candidate.token, result.word);
  return result;
}

inline CtcError step_row(CtcBeam& beam, const ContextModel& model, const CtcBeamOptions& options) {
  stay(beam, options);
  collect(beam, model, options);
  float best = kLogZero;
  for (int32_t i = 0; i < beam.count; ++i) best = beam.next.total[i] > best ? beam.next.total[i] : best;
  for (int32_t i = 0; i < beam.candidate_count; ++i)
    best = beam.candidates[i].total > best ? beam.candidates[i].total : best;
  if (is_log_zero(best)) return kCtcNoPrefix;
  const float limit = best + options.beam_prune_logp;
  const float last = select(beam, options, limit > 0.5f * kLogZero ? limit : 0.5f * kLogZero);
  if (!is_log_zero(last)) beam.spread = best - last;

  for (int32_t i = 0; i < beam.candidate_count; ++i) beam.entrants[i] = entrant(beam, model, beam.candidates[i]);
  stay_aligned(beam, options);
  const CtcBeamScores before = beam.now;
  beam.now = beam.next;
  beam.next = before;

  int32_t entered = 0, count = beam.count;
  for (int32_t i = 0; i < count; ++i)
    if (is_log_zero(beam.now.total[i])) leave(beam, i);
  for (int32_t i = 0; i < count;) {
    if (!is_log_zero(beam.now.total[i])) {
      ++i;
    } else if (entered < beam.candidate_count) {
      enter(beam, model, i++, beam.entrants[entered++]);
    } else if (--count > i && !is_log_zero(beam.now.total[count])) {
      move(beam, count, i++);
    }
  }
  while (entered < beam.candidate_count) enter(beam, model, count++, beam.entrants[entered++]);
  beam.count = count;
  beam.shift = best;
  ++beam.frame;
  return kCtcOk;
}

// The next frame. The tree must have room for beam_width more prefixes and twice as many alignments. After an error the
// beam is as it was.
inline CtcError step(CtcBeam& beam, const ContextModel& model, const CtcBeamOptions& options, const float* log_probs) {
  CtcError error = ctc_check_row(log_probs, options.row.vocabulary, options.row.check_normalised);
  if (error != kCtcOk) return error;
  const float shift = beam.shift;
  ctc_make_row(log_probs, options.row, true, shift, beam.row, beam.row_scratch);
  error = step_row(beam, model, options);
  if (error == kCtcNoPrefix) {
    // Pruned tokens are all that the prefixes can go on with.
    ctc_make_row(log_probs, options.row, false, shift, beam.row, beam.row_scratch);
    error = step_row(beam, model, options);
  }
  if (error == kCtcOk) beam.offset += shift;
  return error;
}

}  // namespace ctc_beam
}  // namespace asrkern
