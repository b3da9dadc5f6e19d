// One frame of the beam search of ctc_beam.h by a team, whose threads share out prefixes, tokens and candidates. It
// finds what cpu/ctc_beam_step.h finds, with one exception: with more than kMaskBits tokens and more candidates than
// there is room for, it may keep others of those with equal scores.
#pragma once

#include <cstdint>

#include "kernels/common/team.h"
#include "kernels/ctc/ctc_beam_parts.h"
#include "kernels/ctc/ctc_beam_plan.h"
#include "kernels/ctc/ctc_tree_team.h"

namespace asrkern {
namespace ctc_beam {

template <class Team>
ASRKERN_HOST_DEVICE CtcError check_row(Team& team, const float* log_probs, const CtcRowOptions& options) {
  CtcRowCheck check;
  for (int32_t v = team.rank(); v < options.vocabulary; v += team.size()) check.add(log_probs[v]);
  return team.reduce(check, [](const CtcRowCheck& a, const CtcRowCheck& b) { return a.merged(b); })
      .verdict(options.check_normalized);
}

// The team's ctc_make_row.
template <class Team>
ASRKERN_HOST_DEVICE void make_row(Team& team, const float* log_probs, const CtcRowOptions& options, bool prune,
                                  float shift, float* row) {
  const int32_t vocabulary = options.vocabulary;
  float best = 2 * kLogZero;
  for (int32_t v = team.rank(); v < vocabulary; v += team.size()) {
    row[v] = log_probs[v] > -kLargestScore ? log_probs[v] : kLogZero;
    if (v == options.blank) row[v] -= options.blank_penalty;
    best = row[v] > best ? row[v] : best;
  }
  best = team_max(team, best);
  float limit = options.token_min_logp;
  if (options.top_tokens < vocabulary) {
    const float last = team_kth_largest(team, vocabulary, options.top_tokens, [row](int32_t v) { return row[v]; });
    limit = last > limit ? last : limit;
  }
  limit = limit < best ? limit : best;
  for (int32_t v = team.rank(); v < vocabulary; v += team.size())
    row[v] = (!prune || row[v] >= limit ? row[v] : kLogZero) - shift;
  if (team.rank() == 0) row[vocabulary] = kLogZero;
  team.sync();
}

// The scores one frame later of the prefixes that stay, without extensions, into `next`.
template <class Team>
ASRKERN_HOST_DEVICE void stay(Team& team, CtcTeamBeam& beam, const CtcBeamOptions& options) {
  const int32_t sentinel = options.beam_width;
  const float blank = beam.row[options.row.blank];
  for (int32_t i = team.rank(); i <= sentinel; i += team.size()) beam.first_child[i] = -1;
  team.sync();
  for (int32_t i = team.rank(); i < beam.count; i += team.size()) {
    const int32_t slot = beam.parent[i] < 0 ? -1 : beam.tree.prefixes[beam.parent[i]].slot;
    const int32_t p = slot < 0 ? sentinel : slot;
    beam.parent_slot[i] = p;
    beam.next_child[i] = team_exchange(&beam.first_child[p], i);
    const float from = passed_on(beam.now, p, beam.last[p] == beam.last[i]).score, row_last = beam.row[beam.last[i]];
    float &token = beam.next.token[i], &silent = beam.next.blank[i], &total = beam.next.total[i];
    if (options.add)
      stay_scores<true>(beam.now.token[i], beam.now.total[i], from, beam.gain[i], row_last, blank, token, silent,
                        total);
    else
      stay_scores<false>(beam.now.token[i], beam.now.total[i], from, beam.gain[i], row_last, blank, token, silent,
                         total);
  }
  team.sync();
}

// Whether the beam holds the extension of a slot's prefix by a token that ends `word`.
ASRKERN_HOST_DEVICE inline bool has_child(const CtcTeamBeam& beam, int32_t slot, int32_t token, int32_t word) {
  for (int32_t child = beam.first_child[slot]; child >= 0; child = beam.next_child[child])
    if (beam.last[child] == token && beam.tree.prefixes[beam.node[child]].word == word) return true;
  return false;
}

// Keeps the `width` best of the staying prefixes and the candidates, as far as they reach `limit`. Of equal scores the
// first ones are kept. Returns the score that a further candidate must exceed, and sets `candidates` to those kept.
template <class Team>
ASRKERN_HOST_DEVICE float select(Team& team, CtcTeamBeam& beam, int32_t width, float limit, int32_t& candidates) {
  const int32_t stays = beam.count, all = stays + candidates;
  const auto total = [&beam, stays](int32_t i) {
    return i < stays ? beam.next.total[i] : beam.candidates[i - stays].total;
  };
  int32_t equals = team_count(team, all, [&](int32_t i) { return total(i) >= limit; });
  if (equals == all && all <= width) return limit;
  if (equals > width) {
    limit = team_kth_largest(team, all, width, total);
    equals = width - team_count(team, all, [&](int32_t i) { return total(i) > limit; });
  }
  int32_t kept = 0;
  for (int32_t first = 0; first < all; first += team.size()) {
    const int32_t i = first + team.rank();
    const float value = i < all ? total(i) : 2 * kLogZero;
    CtcCandidate candidate;
    if (i >= stays && i < all) candidate = beam.candidates[i - stays];
    int32_t equals_here, kept_here;
    const int32_t equals_before = team.scan(value == limit, equals_here);
    const bool keep = value > limit || (value == limit && equals_before < equals);
    equals -= equals_here;
    const int32_t at = kept + team.scan(keep && i >= stays, kept_here);
    kept += kept_here;
    // Now all threads have read their totals.
    if (i < stays && !keep) beam.next.total[i] = kLogZero;
    if (i >= stays && keep) beam.candidates[at] = candidate;
  }
  team.sync();
  candidates = kept;
  return limit;
}

// Lists in beam.tokens, in ascending order, the tokens but blank whose value in the row exceeds `least`. best_boundary:
// becomes the largest such value of a token at a word's boundary.
template <class Team>
ASRKERN_HOST_DEVICE int32_t list_tokens(Team& team, CtcTeamBeam& beam, const ContextModel& model,
                                        const CtcRowOptions& options, float least, float& best_boundary) {
  int32_t count = 0;
  best_boundary = 2 * kLogZero;
  for (int32_t first = 0; first < options.vocabulary; first += team.size()) {
    const int32_t v = first + team.rank();
    const bool possible = v < options.vocabulary && v != options.blank && beam.row[v] > least;
    int32_t here;
    const int32_t at = count + team.scan(possible, here);
    if (possible) beam.tokens[at] = v;
    if (possible && model.token_kinds[v] != kInsideWord && beam.row[v] > best_boundary) best_boundary = beam.row[v];
    count += here;
  }
  best_boundary = team_max(team, best_boundary);
  team.sync();
  return count;
}

// Makes the extension of a slot by a token inside a word. False if it does not exceed `bar`, or is in the beam.
ASRKERN_HOST_DEVICE inline bool extend_inside(const CtcTeamBeam& beam, const ContextModel& model, int32_t slot,
                                              int32_t token, float bar, CtcCandidate& candidate) {
  if (!(beam.now.total[slot] + beam.phrase_reach[slot] + beam.row[token] > below(bar))) return false;
  const int32_t node = beam.context[slot].hotword_node;
  const float credit = hotword_credit(model, hotword_next(model, node, token)), before = hotword_credit(model, node);
  float gain;
  if (!extension_gain(beam, model, slot, token, credit, before, below(bar), gain)) return false;
  candidate = {acoustic(beam, slot, token) + gain, gain, slot, token, 0};
  return candidate.total > bar && !has_child(beam, slot, token, kNoWord);
}

// The same for a token at a word's boundary and one of the words that may end there. more: whether more words may.
ASRKERN_HOST_DEVICE inline bool extend_boundary(CtcTeamBeam& beam, const ContextModel& model, int32_t slot,
                                                int32_t token, int32_t choice, float bar, CtcCandidate& candidate,
                                                bool& more) {
  more = false;
  if (!(boundary_reach(beam, model, slot, beam.row[token]) > below(bar))) return false;
  float gain;
  if (!boundary_gain(beam, model, slot, token, below(bar), gain)) return false;
  const int32_t lexicon_node = beam.context[slot].lexicon_node, choices = word_choices(model, lexicon_node);
  more = choice + 1 < choices;
  if (choice >= choices) return false;
  const int32_t word = word_of_choice(model, lexicon_node, choice);
  gain = end_gain(beam, model, slot, choices, word) + gain;
  candidate = {acoustic(beam, slot, token) + gain, gain, slot, token, choice};
  return candidate.total > bar && !has_child(beam, slot, token, word);
}

// Computes end_gain of every prefix whose word some token of this row may end. Once for each prefix, since the language
// model's lookup is slow. best_boundary: the row's largest value of a token at a word's boundary.
template <class Team>
ASRKERN_HOST_DEVICE void end_words(Team& team, CtcTeamBeam& beam, const ContextModel& model, float best_boundary,
                                   float bar) {
  for (int32_t i = team.rank(); i < beam.count; i += team.size()) {
    const int32_t lexicon_node = beam.context[i].lexicon_node;
    if (!beam.end_known[i] && boundary_reach(beam, model, i, best_boundary) > below(bar) &&
        word_choices(model, lexicon_node) == 1)
      end_gain(beam, model, i, 1, word_of_choice(model, lexicon_node, 0));
  }
  team.sync();
}

// Collects the extensions of the beam by one token that may be among the best. Returns how many there are.
template <class Team>
ASRKERN_HOST_DEVICE int32_t collect(Team& team, CtcTeamBeam& beam, const ContextModel& model,
                                    const CtcBeamOptions& options) {
  struct Bounds {
    float best, worst, base;
  };
  const int32_t count = beam.count;
  Bounds bounds{kLogZero, -kLogZero, 2 * kLogZero};
  for (int32_t i = team.rank(); i < count; i += team.size()) {
    const float total = beam.next.total[i], boundary = beam.end_reach[i] + model.begin_reach;
    const float reach = beam.phrase_reach[i] > boundary ? beam.phrase_reach[i] : boundary;
    const float base = beam.now.total[i] + reach;
    bounds.best = total > bounds.best ? total : bounds.best;
    bounds.worst = total < bounds.worst ? total : bounds.worst;
    bounds.base = base > bounds.base ? base : bounds.base;
  }
  bounds = team.reduce(bounds, [](const Bounds& a, const Bounds& b) {
    return Bounds{a.best > b.best ? a.best : b.best, a.worst < b.worst ? a.worst : b.worst,
                  a.base > b.base ? a.base : b.base};
  });
  float bar = 0.5f * kLogZero, base = bounds.base;
  if (model.lm_tokens && model.beta > 0) base += model.beta;
  if (bounds.best + options.beam_prune_logp > bar) bar = bounds.best + options.beam_prune_logp;
  if (count == options.beam_width && bounds.worst > bar) bar = bounds.worst;
  float least = below(bar) - base, best_boundary;
  if (least < 0.5f * kLogZero) least = 0.5f * kLogZero;
  const int32_t tokens = list_tokens(team, beam, model, options.row, least, best_boundary);
  if (tokens == 0) return 0;
  if (!is_log_zero(best_boundary)) end_words(team, beam, model, best_boundary, bar);

  const int32_t pairs = count * tokens;
  int32_t candidates = 0;
  for (int32_t first = 0; first < pairs; first += team.size()) {
    const int32_t pair = first + team.rank();
    const int32_t slot = pair < pairs ? pair / tokens : 0;
    const int32_t token = beam.tokens[pair < pairs ? pair % tokens : 0];
    const bool inside = model.token_kinds[token] == kInsideWord;
    bool more = pair < pairs;
    for (int32_t choice = 0;; ++choice) {
      CtcCandidate candidate;
      bool found = false;
      if (more && inside) {
        found = extend_inside(beam, model, slot, token, bar, candidate);
        more = false;
      } else if (more) {
        found = extend_boundary(beam, model, slot, token, choice, bar, candidate, more);
      }
      // Two counts in one number: a team has fewer than 2^15 threads, so 16 bits hold each.
      int32_t all;
      const int32_t at = team.scan(found | int32_t(more) << 16, all) & 0xffff;
      if (found) beam.candidates[candidates + at] = candidate;
      candidates += all & 0xffff;
      if (candidates + team.size() > beam.candidate_room) {
        team.sync();
        const float limit = select(team, beam, options.beam_width, bar, candidates);
        bar = limit > bar ? limit : bar;
      }
      if (all >> 16 == 0) break;
    }
  }
  team.sync();
  return candidates;
}

// Makes prefixes of the candidates, in beam.entrants.
template <class Team>
ASRKERN_HOST_DEVICE void make_entrants(Team& team, CtcTeamBeam& beam, const ContextModel& model, int32_t candidates) {
  PrefixTree& tree = beam.tree;
  for (int32_t i = team.rank(); i < candidates; i += team.size()) {
    const CtcCandidate& candidate = beam.candidates[i];
    CtcEntrant& entrant = beam.entrants[i];
    describe(beam, model, candidate, entrant);
    entrant.alignment = tree.alignment_count + i;
    tree.alignments[entrant.alignment] = extended_alignment(beam, candidate.slot, candidate.token);
    entrant.node = tree.find_child(beam.node[candidate.slot], candidate.token, entrant.word);
  }
  team.sync();
  int32_t made = tree.prefix_count;
  for (int32_t first = 0; first < candidates; first += team.size()) {
    const int32_t i = first + team.rank();
    const bool missing = i < candidates && beam.entrants[i].node < 0;
    int32_t here;
    const int32_t node = made + team.scan(missing, here);
    made += here;
    if (!missing) continue;
    CtcEntrant& entrant = beam.entrants[i];
    const int32_t parent = beam.node[beam.candidates[i].slot];
    entrant.node = node;
    tree.prefixes[node] = {parent, entrant.token, entrant.word, tree.prefixes[parent].depth + 1, -1, -1, -1};
    link_child(tree, parent, node);
  }
  team.sync();
  if (team.rank() == 0) {
    tree.prefix_count = made;
    tree.alignment_count += candidates;
  }
  team.sync();
}

// The best alignments of the prefixes that stay.
template <class Team>
ASRKERN_HOST_DEVICE void stay_aligned(Team& team, CtcTeamBeam& beam, const CtcBeamOptions& options) {
  const int32_t count = beam.count;
  const float blank = beam.row[options.row.blank];
  const CtcBeamScores now = beam.now, next = beam.next;
  int32_t made = beam.tree.alignment_count;
  for (int32_t first = 0; first < count; first += team.size()) {
    const int32_t i = first + team.rank();
    bool extended = false;
    if (i < count && !is_log_zero(next.total[i])) {
      const int32_t p = beam.parent_slot[i];
      const float from = passed_on(now, p, beam.last[p] == beam.last[i]).best;
      extended = stay_best(now.best_token[i], now.best_blank[i], from, beam.gain[i], beam.row[beam.last[i]], blank,
                           next.best_token[i], next.best_blank[i]);
    }
    int32_t here;
    const int32_t node = made + team.scan(extended, here);
    made += here;
    if (i < count) beam.new_alignment[i] = extended ? node : -1;
    if (extended) beam.tree.alignments[node] = extended_alignment(beam, beam.parent_slot[i], beam.last[i]);
  }
  team.sync();
  for (int32_t i = team.rank(); i < count; i += team.size())
    if (!is_log_zero(next.total[i])) {
      keep_blank_alignment(beam, now, i);
      if (beam.new_alignment[i] >= 0) beam.token_alignment[i] = beam.new_alignment[i];
    }
  if (team.rank() == 0) beam.tree.alignment_count = made;
  team.sync();
}

// Removes the prefixes that were not kept. Entrants take their slots; if slots remain, prefixes beyond the new count
// move into them.
template <class Team>
ASRKERN_HOST_DEVICE void replace(Team& team, CtcTeamBeam& beam, const ContextModel& model, int32_t entrants) {
  const int32_t count = beam.count;
  int32_t freed = 0;
  for (int32_t first = 0; first < count; first += team.size()) {
    const int32_t i = first + team.rank();
    const bool leaves = i < count && is_log_zero(beam.now.total[i]);
    int32_t here;
    const int32_t at = freed + team.scan(leaves, here);
    freed += here;
    if (!leaves) continue;
    beam.freed[at] = i;
    leave(beam, i);
  }
  team.sync();
  for (int32_t i = team.rank(); i < entrants; i += team.size())
    enter(beam, model, i < freed ? beam.freed[i] : count + i - freed, beam.entrants[i]);
  const int32_t after = count - freed + entrants;
  // The last of the staying prefixes moves to the first free slot, and so on.
  const int32_t left =
      team_count(team, count - after, [&](int32_t i) { return !is_log_zero(beam.now.total[after + i]); });
  int32_t moved = 0;
  for (int32_t first = after; first < count; first += team.size()) {
    const int32_t i = first + team.rank();
    const bool moves = i < count && !is_log_zero(beam.now.total[i]);
    int32_t here;
    const int32_t at = moved + team.scan(moves, here);
    moved += here;
    if (moves) move(beam, i, beam.freed[entrants + left - 1 - at]);
  }
  if (team.rank() == 0) beam.count = after;
  team.sync();
}

// The team's settle(), see ctc_beam_step.h.
template <class Team>
ASRKERN_HOST_DEVICE void settle(Team& team, CtcTeamBeam& beam, const ContextModel& model,
                                const CtcBeamOptions& options) {
  if (beam.frame % kSettleFrames) return;
  struct Best {
    float total;
    int32_t slot;
  };
  Best best{2 * kLogZero, 0};
  for (int32_t i = team.rank(); i < beam.count; i += team.size())
    if (beam.now.total[i] > best.total) best = {beam.now.total[i], i};
  best = team.reduce(best, [](const Best& a, const Best& b) {
    return a.total > b.total || (a.total == b.total && a.slot < b.slot) ? a : b;
  });
  const int32_t tokens = tokens_to_settle(beam, options, best.slot);
  if (tokens == beam.settled) return;
  team.sync();  // every thread has read it
  if (team.rank() == 0) beam.settled = tokens;
  const int32_t prefix = beginning(beam.tree, beam.node[best.slot], tokens);
  for (int32_t i = team.rank(); i < beam.count; i += team.size())
    if (beginning(beam.tree, beam.node[i], tokens) != prefix) beam.now.total[i] = kLogZero;
  team.sync();
  replace(team, beam, model, 0);
}

template <class Team>
ASRKERN_HOST_DEVICE CtcError step_row(Team& team, CtcTeamBeam& beam, const ContextModel& model,
                                      const CtcBeamOptions& options) {
  stay(team, beam, options);
  int32_t candidates = collect(team, beam, model, options);
  float best = kLogZero;
  for (int32_t i = team.rank(); i < beam.count; i += team.size())
    best = beam.next.total[i] > best ? beam.next.total[i] : best;
  for (int32_t i = team.rank(); i < candidates; i += team.size())
    best = beam.candidates[i].total > best ? beam.candidates[i].total : best;
  best = team_max(team, best);
  if (is_log_zero(best)) return kCtcNoPrefix;
  const float limit = best + options.beam_prune_logp;
  select(team, beam, options.beam_width, limit > 0.5f * kLogZero ? limit : 0.5f * kLogZero, candidates);
  make_entrants(team, beam, model, candidates);
  stay_aligned(team, beam, options);
  if (team.rank() == 0) {
    const CtcBeamScores before = beam.now;
    beam.now = beam.next;
    beam.next = before;
    beam.shift = best;
    ++beam.frame;
  }
  team.sync();
  replace(team, beam, model, candidates);
  return kCtcOk;
}

// Makes room in the trees for one more frame. False if there is none.
template <class Team>
ASRKERN_HOST_DEVICE bool reserve(Team& team, CtcTeamBeam& beam, const CtcBeamOptions& options) {
  PrefixTree& tree = beam.tree;
  const auto full = [&] {
    const int32_t used = tree.prefix_count > tree.alignment_count ? tree.prefix_count : tree.alignment_count;
    return used > beam.tree_room - 2 * options.beam_width;
  };
  if (!full()) return true;
  int32_t* const tails[] = {beam.blank_alignment, beam.token_alignment};
  compact(team, tree, beam.node, beam.count, tails, 2, beam.moved);
  for (int32_t i = team.rank(); i < beam.count; i += team.size()) beam.parent[i] = tree.prefixes[beam.node[i]].parent;
  team.sync();
  return !full();
}

// The next frame. After an error the beam is as it was.
template <class Team>
ASRKERN_HOST_DEVICE CtcError step(Team& team, CtcTeamBeam& beam, const ContextModel& model,
                                  const CtcBeamOptions& options, const float* log_probs) {
  CtcError error = check_row(team, log_probs, options.row);
  if (error != kCtcOk) return error;
  if (!reserve(team, beam, options)) return kCtcNoRoom;
  const float shift = beam.shift;
  error = kCtcNoPrefix;
  // If no prefix can go on with the tokens left by pruning, all tokens are tried.
  for (bool prune = true; error == kCtcNoPrefix; prune = false) {
    make_row(team, log_probs, options.row, prune, shift, beam.row);
    error = step_row(team, beam, model, options);
    if (!prune) break;
  }
  if (error == kCtcOk && team.rank() == 0) beam.offset += shift;
  team.sync();
  if (error == kCtcOk) settle(team, beam, model, options);
  return error;
}

}  // namespace ctc_beam
}  // namespace asrkern
