// A whole beam search by a team: an utterance's frames one after the other, then its n-best.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_beam_team.h"
#include "kernels/ctc/ctc_result_team.h"

namespace asrkern {

// What a search is given. On a device, all arrays are on that device.
struct CtcBeamSearch {
  int64_t rows, frames;
  const float* log_probs;  // [rows, frames, vocabulary]
  const int64_t* lengths;  // [rows], or null: all frames
  ContextModel model;      // its `lm` counts as yes or no only:
  NGramTables lm;
  CtcBeamOptions options;
  CtcBeamPlan plan;
  char* arena;       // [rows, plan.arena_bytes], aligned to 16 bytes
  CtcOutput output;  // of the first row; the other rows' follow
  int32_t* errors;   // [rows, 2] CtcError, frame
};

// What a team's threads share. It is at the beginning of the team's fast memory; the beam's arrays follow.
struct CtcTeamState {
  ContextModel model;
  NGramTables lm;
  CtcTeamBeam beam;
};

inline int64_t ctc_fast_bytes(const CtcBeamPlan& plan) {
  return (int64_t(sizeof(CtcTeamState)) + 15) / 16 * 16 + plan.fast_bytes;
}

template <class Team>
ASRKERN_HOST_DEVICE CtcError ctc_search_frames(Team& team, const CtcBeamSearch& search, int64_t row, int64_t length,
                                               CtcTeamState& state, int32_t& frame) {
  const CtcBeamOptions& options = search.options;
  const int32_t vocabulary = options.row.vocabulary;
  const float* log_probs = search.log_probs + row * search.frames * vocabulary;
  for (frame = 0; frame < length; ++frame, log_probs += vocabulary) {
    // Fetches the next frame while this one is searched.
    if (frame + 1 < length)
      for (int32_t v = team.rank(); v < vocabulary; v += team.size()) team.prefetch(log_probs + vocabulary + v);
    const CtcError error = ctc_beam::step(team, state.beam, state.model, options, log_probs);
    if (error != kCtcOk) return error;
  }
  frame = -1;
  return ctc_beam::write_results(team, state.beam, state.model, options.add, ctc_output_of_row(search.output, row));
}

// fast: ctc_fast_bytes of memory that the team's threads share, aligned to 16 bytes.
template <class Team>
ASRKERN_HOST_DEVICE void ctc_search_row(Team& team, const CtcBeamSearch& search, int64_t row, char* fast) {
  CtcTeamState& state = *reinterpret_cast<CtcTeamState*>(fast);
  if (team.rank() == 0) {
    state.lm = search.lm;
    state.model = search.model;
    state.model.lm = search.model.lm ? &state.lm : nullptr;
    ctc_beam::bind(state.beam, search.plan, search.options.beam_width, search.options.row.vocabulary, search.frames,
                   fast + (sizeof(CtcTeamState) + 15) / 16 * 16, search.arena + row * search.plan.arena_bytes);
    ctc_beam::start(state.beam, state.model, search.options);
  }
  ctc_clear(team, ctc_output_of_row(search.output, row));
  const int64_t length = search.lengths ? search.lengths[row] : search.frames;
  CtcError error = kCtcBadLength;
  int32_t frame = -1;
  if (length >= 0 && length <= search.frames) error = ctc_search_frames(team, search, row, length, state, frame);
  if (team.rank() == 0) {
    search.errors[2 * row] = error;
    search.errors[2 * row + 1] = frame;
  }
  team.sync();
}

}  // namespace asrkern
