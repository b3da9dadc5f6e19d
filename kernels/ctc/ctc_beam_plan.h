// How much memory a team's beam search takes, and where each array is in it. What every frame reads is in the team's
// fast memory (on a GPU the shared memory of a block); the trees are in the arena.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/host_device.h"
#include "kernels/ctc/ctc_beam.h"
#include "kernels/ctc/ctc_ending.h"

namespace asrkern {

// The beam of a search by a team: CtcBeam, and the team's scratch.
struct CtcTeamBeam : CtcBeam {
  int32_t candidate_room;
  int32_t* tokens;       // [vocabulary] the tokens of a frame
  int32_t* first_child;  // [W + 1] list of the children that are in the beam: slots, −1 at the end
  int32_t* next_child;   // [W]
  int32_t* freed;        // [W] slots of prefixes that leave the beam
  int32_t tree_room;     // nodes of each tree
  int32_t* moved;        // [tree_room] scratch for compacting
  int32_t ending_room;
  ctc_beam::Ending* endings;  // [ending_room]
  int32_t* order;             // [ending_room] the endings, the best first
  int32_t* ranks;             // [ending_room] of each text its best ending, the likeliest text first
  ctc_beam::WordSpan* words;  // [frames] the words of a hypothesis
  uint64_t* shares;           // [frames] the confidences of these words, in units of 2^-62
};

struct CtcBeamPlan {
  int32_t threads;
  int32_t candidate_room;
  int32_t tree_room;
  int32_t ending_room;
  int64_t fast_bytes;   // what bind() takes from `fast`, for each utterance
  int64_t arena_bytes;  // what it takes from `arena`, likewise
};

// Hands out arrays of a block of memory, one after the other. If the block begins at null, it only counts the bytes.
class MemoryCutter {
 public:
  ASRKERN_HOST_DEVICE explicit MemoryCutter(char* base) : base_(base) {}

  template <class T>
  ASRKERN_HOST_DEVICE void take(T*& array, int64_t count) {
    used_ = (used_ + 15) / 16 * 16;
    array = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += count * int64_t(sizeof(T));
  }

  ASRKERN_HOST_DEVICE int64_t used() const { return (used_ + 15) / 16 * 16; }

 private:
  char* base_;
  int64_t used_ = 0;
};

namespace ctc_beam {

ASRKERN_HOST_DEVICE inline void bind_fast(CtcTeamBeam& beam, MemoryCutter& fast, int64_t width, int64_t vocabulary) {
  for (CtcBeamScores* scores : {&beam.now, &beam.next})
    for (float** array : {&scores->blank, &scores->token, &scores->total, &scores->best_blank, &scores->best_token})
      fast.take(*array, width + 1);
  for (int32_t** array :
       {&beam.last, &beam.node, &beam.parent, &beam.blank_alignment, &beam.blank_end, &beam.token_alignment,
        &beam.parent_slot, &beam.new_alignment, &beam.first_child, &beam.next_child, &beam.freed})
    fast.take(*array, width + 1);
  for (float** array : {&beam.gain, &beam.inside_reach, &beam.phrase_reach, &beam.end_reach}) fast.take(*array, width);
  fast.take(beam.end_known, width);
  fast.take(beam.context_score, width);
  fast.take(beam.context, width);
  fast.take(beam.row, vocabulary + 1);
  fast.take(beam.tokens, vocabulary);
  fast.take(beam.candidates, beam.candidate_room);
  fast.take(beam.entrants, width);
}

ASRKERN_HOST_DEVICE inline void bind_arena(CtcTeamBeam& beam, MemoryCutter& arena, int64_t frames) {
  arena.take(beam.tree.prefixes, beam.tree_room);
  arena.take(beam.tree.alignments, beam.tree_room);
  arena.take(beam.moved, beam.tree_room);
  arena.take(beam.endings, beam.ending_room);
  arena.take(beam.order, beam.ending_room);
  arena.take(beam.ranks, beam.ending_room);
  arena.take(beam.words, frames);
  arena.take(beam.shares, frames);
}

// Lets the arrays of `beam` point into the memory that the plan asks for.
ASRKERN_HOST_DEVICE inline void bind(CtcTeamBeam& beam, const CtcBeamPlan& plan, int64_t width, int64_t vocabulary,
                                     int64_t frames, char* fast, char* arena) {
  beam.candidate_room = plan.candidate_room;
  beam.tree_room = plan.tree_room;
  beam.ending_room = plan.ending_room;
  MemoryCutter fast_cutter(fast), arena_cutter(arena);
  bind_fast(beam, fast_cutter, width, vocabulary);
  bind_arena(beam, arena_cutter, frames);
}

}  // namespace ctc_beam

constexpr int64_t kEndingsPerPrefix = 8,
                  kMoreEndings = 64;  // room for endings: so many a prefix, and some for narrow beams

// threads: of the team; 0: as many as suit the beam. tree_room: nodes that each of the two trees may have. 0: as many
// as all frames can make, but no more than compacting needs (2^16, or 256 a prefix of the beam). A prefix has an ending
// for each word that may end with it; there is room for kEndingsPerPrefix of them a prefix.
inline CtcBeamPlan ctc_beam_plan(int64_t width, int64_t vocabulary, int64_t frames, int64_t threads = 0,
                                 int64_t tree_room = 0) {
  CtcBeamPlan plan{};
  plan.threads = int32_t(threads ? threads : width <= 32 ? 128 : width <= 128 ? 256 : 512);
  plan.candidate_room = int32_t(width + 3 * int64_t(plan.threads));
  const int64_t most = 2 * width * (frames + 1), usual = 256 * width > 65536 ? 256 * width : 65536;
  plan.tree_room = int32_t(tree_room ? tree_room : most < usual ? most : usual);
  plan.ending_room = int32_t(kEndingsPerPrefix * width + kMoreEndings);
  CtcTeamBeam beam{};
  MemoryCutter fast(nullptr), arena(nullptr);
  beam.candidate_room = plan.candidate_room;
  beam.tree_room = plan.tree_room;
  beam.ending_room = plan.ending_room;
  ctc_beam::bind_fast(beam, fast, width, vocabulary);
  ctc_beam::bind_arena(beam, arena, frames);
  plan.fast_bytes = fast.used();
  plan.arena_bytes = arena.used();
  return plan;
}

}  // namespace asrkern
