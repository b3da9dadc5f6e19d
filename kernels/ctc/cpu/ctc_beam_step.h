// One frame of the beam search of ctc_beam.h, by one thread.
#pragma once

#include <cstdint>

#include "kernels/ctc/cpu/ctc_collect.h"
#include "kernels/ctc/cpu/ctc_row.h"
#include "kernels/ctc/cpu/ranking.h"
#include "kernels/ctc/ctc_beam_parts.h"

namespace asrkern {
namespace ctc_beam {
namespace {

// The scores of the prefixes that stay. `__restrict` results do not overlap the rest, so the loop vectorises.
template <bool add>
void join(int32_t count, const float* token, const float* total, const float* from, const float* gain,
          const float* row_last, float blank, float* __restrict__ next_token, float* __restrict__ next_blank,
          float* __restrict__ next_total) {
  for (int32_t i = 0; i < count; ++i)
    stay_scores<add>(token[i], total[i], from[i], gain[i], row_last[i], blank, next_token[i], next_blank[i],
                     next_total[i]);
}

// The scores one frame later of the prefixes that stay, into `next`. A prefix stays by a blank, by its last token once
// more, or as the extension of its parent by that token.
inline void stay(CtcSerialBeam& beam, const CtcBeamOptions& options) {
  const int32_t count = beam.count, sentinel = options.beam_width;
  const CtcBeamScores now = beam.now, next = beam.next;
  for (int32_t i = 0; i <= sentinel; ++i) beam.children[i] = 0;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t slot = beam.parent[i] < 0 ? -1 : beam.tree.prefixes[beam.parent[i]].slot;
    const int32_t p = slot < 0 ? sentinel : slot;
    const Passed passed = passed_on(now, p, beam.last[p] == beam.last[i]);
    beam.parent_slot[i] = p;
    beam.children[p] |= mask_of(beam.last[i]);
    beam.from[i] = passed.score;
    beam.best_from[i] = passed.best;
    beam.row_last[i] = beam.row[beam.last[i]];
  }
  (options.add ? join<true> : join<false>)(count, now.token, now.total, beam.from, beam.gain, beam.row_last,
                                           beam.row[options.row.blank], next.token, next.blank, next.total);
}

// The best alignments of the prefixes that stay. All are read from their parents before any is changed.
inline void stay_aligned(CtcSerialBeam& beam, const CtcBeamOptions& options) {
  const int32_t count = beam.count;
  const CtcBeamScores now = beam.now, next = beam.next;
  const float blank = beam.row[options.row.blank];
  const float *from = beam.best_from, *gain = beam.gain, *row_last = beam.row_last;
  int32_t* const extended = beam.scratch_slots;
  int32_t extensions = 0;
  for (int32_t i = 0; i < count; ++i) {
    extended[extensions] = i;
    const bool better = stay_best(now.best_token[i], now.best_blank[i], from[i], gain[i], row_last[i], blank,
                                  next.best_token[i], next.best_blank[i]);
    extensions += better & !is_log_zero(next.total[i]);
  }
  for (int32_t k = 0; k < extensions; ++k) {
    const int32_t i = extended[k];
    beam.new_alignment[i] = beam.tree.add_alignment(extended_alignment(beam, beam.parent_slot[i], beam.last[i]));
  }
  for (int32_t i = 0; i < count; ++i) keep_blank_alignment(beam, now, i);
  for (int32_t k = 0; k < extensions; ++k) beam.token_alignment[extended[k]] = beam.new_alignment[extended[k]];
}

// Makes a prefix of a candidate, with its node in the tree.
inline void make_entrant(CtcSerialBeam& beam, const ContextModel& model, const CtcCandidate& candidate,
                         CtcEntrant& result) {
  describe(beam, model, candidate, result);
  result.alignment = beam.tree.add_alignment(extended_alignment(beam, candidate.slot, candidate.token));
  const int32_t parent = beam.node[candidate.slot];
  result.node = beam.tree.find_child(parent, candidate.token, result.word);
  if (result.node < 0) result.node = beam.tree.add_child(parent, candidate.token, result.word);
}

// Prefixes that were not kept leave the beam. Entrants take their slots; if slots remain, prefixes from the end do.
inline void replace(CtcSerialBeam& beam, const ContextModel& model) {
  int32_t* const freed = beam.scratch_slots;
  int32_t frees = 0, count = beam.count;
  for (int32_t i = 0; i < count; ++i) {
    freed[frees] = i;
    frees += is_log_zero(beam.now.total[i]);
  }
  for (int32_t k = 0; k < frees; ++k) leave(beam, freed[k]);
  const int32_t entrants = beam.candidate_count, replaced = entrants < frees ? entrants : frees;
  for (int32_t k = 0; k < entrants; ++k) {
    const int32_t slot = k < replaced ? freed[k] : count++;
    enter(beam, model, slot, beam.entrants[k]);
    note_phrase_edges(beam, model, slot);
  }
  for (int32_t k = replaced; k < frees && freed[k] < count;) {
    if (is_log_zero(beam.now.total[--count])) continue;
    move(beam, count, freed[k]);
    note_phrase_edges(beam, model, freed[k++]);
  }
  beam.count = count;
}

// Drops prefixes that differ from the best one far back; see kSettleFrames.
inline void settle(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options) {
  if (beam.frame % kSettleFrames) return;
  int32_t best = 0;
  for (int32_t i = 1; i < beam.count; ++i)
    if (beam.now.total[i] > beam.now.total[best]) best = i;
  const int32_t tokens = tokens_to_settle(beam, options, best);
  if (tokens == beam.settled) return;
  beam.settled = tokens;
  const int32_t prefix = beginning(beam.tree, beam.node[best], tokens);
  for (int32_t i = 0; i < beam.count; ++i)
    if (beginning(beam.tree, beam.node[i], tokens) != prefix) beam.now.total[i] = kLogZero;
  beam.candidate_count = 0;
  replace(beam, model);
}

// How far behind the best prefix to expect the last place: follows what it was, upwards at once and downwards slowly.
inline float next_spread(float before, float now) {
  constexpr float kKept = 0.8f;
  return before > now && before < -kLogZero ? now + kKept * (before - now) : now;
}

inline CtcError step_row(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options) {
  stay(beam, options);
  collect(beam, model, options);
  const float* totals = beam.totals;
  const float best = largest(beam.count + beam.candidate_count, kLogZero, [totals](int32_t i) { return totals[i]; });
  if (is_log_zero(best)) return kCtcNoPrefix;
  const float limit = best + options.beam_prune_logp;
  const float last = select(beam, options, limit > 0.5f * kLogZero ? limit : 0.5f * kLogZero);
  if (last > 0.5f * kLogZero) beam.spread = next_spread(beam.spread, best - last);

  for (int32_t i = 0; i < beam.candidate_count; ++i) make_entrant(beam, model, beam.candidates[i], beam.entrants[i]);
  stay_aligned(beam, options);
  const CtcBeamScores before = beam.now;
  beam.now = beam.next;
  beam.next = before;
  replace(beam, model);
  beam.shift = best;
  ++beam.frame;
  return kCtcOk;
}

// The next frame; see CtcKernels::step.
inline CtcError step(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options,
                     const float* log_probs) {
  CtcError error = ctc_check_row(log_probs, options.row.vocabulary, options.row.check_normalized);
  if (error != kCtcOk) return error;
  const float shift = beam.shift;
  ctc_make_row(log_probs, options.row, true, shift, beam.row, beam.row_scratch);
  error = step_row(beam, model, options);
  if (error == kCtcNoPrefix) {
    // No prefix can go on with the tokens left by pruning, so all tokens are tried.
    ctc_make_row(log_probs, options.row, false, shift, beam.row, beam.row_scratch);
    error = step_row(beam, model, options);
  }
  if (error != kCtcOk) return error;
  beam.offset += shift;
  settle(beam, model, options);
  return kCtcOk;
}

}  // namespace
}  // namespace ctc_beam
}  // namespace asrkern
