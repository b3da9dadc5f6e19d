// CTC prefix beam search (Graves et al. 2006; Hannun et al. 2014), one frame at a time. A prefix is a sequence of
// tokens without blanks; its score is the logarithm of the sum over all its alignments that ended in blank or in its
// last token, plus what its context is worth. Prefixes reached in several ways are one: their scores are added before
// the best are chosen.
//
// Where the extension of a prefix is itself in the beam, it looks up its parent's slot and adds what the parent passes
// on (passed_on). So merging searches for nothing. The choice is exact: bounds only skip what cannot be among the best.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/common/host_device.h"
#include "kernels/common/log_space.h"
#include "kernels/ctc/ctc_context.h"
#include "kernels/ctc/ctc_prefix_tree.h"
#include "kernels/ctc/ctc_row.h"
#include "kernels/ctc/text_hash.h"

namespace asrkern {

struct CtcBeamOptions {
  CtcRowOptions row;
  int32_t beam_width;
  float beam_prune_logp;  // ≤ 0: prefixes that are more than that below the best are dropped
  bool add;               // scores of alignments are added; else the best one counts
  int32_t history;        // tokens; how far back prefixes may differ, see settle()
};

// The scores of each prefix, relative to CtcBeam::offset, with what its context is worth.
struct CtcBeamScores {
  float* blank;       // of the alignments that end in blank
  float* token;       // of those that end in the last token
  float* total;       // of both
  float* best_blank;  // the best alignment of each kind
  float* best_token;
};

// An extension of a prefix of the beam by a token.
struct CtcCandidate {
  float total;
  float gain;
  int32_t slot;
  int32_t token;
  int32_t choice;  // which of the words that may end here: below word_choices
};

// A prefix that is about to enter the beam.
struct CtcEntrant {
  float total;
  float best;
  float gain;
  int32_t token;
  int32_t word;  // the word that the token ends
  int32_t node;
  int32_t alignment;
  double context_score;
  PrefixContext context;
};

// The first part of a word, whose tokens have left the tree: all prefixes begin with them.
struct BegunWord {
  TextHash text;
  int32_t first;  // the indices of its first and last token so far; −1: no word is begun
  int32_t last;
  int32_t start, end;  // the frames of these tokens
};

constexpr BegunWord kNoBegunWord{kNoText, -1, -1, 0, 0};

// The beam: `count` prefixes, in no order. The caller owns the arrays. [W] stands for beam_width entries; [W + 1] has
// one more at the end, a sentinel whose scores are impossible. What depends on the prefix alone is computed when the
// prefix enters the beam. CtcSerialBeam and CtcTeamBeam add the scratch of one thread and of a team.
struct CtcBeam {
  int32_t count;
  int32_t frame;
  double offset;  // of all scores, so that float32 holds differences only: precision does not sink with the frames
  float shift;    // the best total, which goes into the offset with the next frame
  float spread;   // how far behind it to expect the last place of a full beam; −kLogZero: not known. A guess only.
  CtcBeamScores now, next;   // [W + 1]
  int32_t* last;             // [W + 1] last token; of the empty prefix the row's sentinel
  int32_t* node;             // [W] in the tree of prefixes
  int32_t* parent;           // [W] its parent's
  int32_t* blank_alignment;  // [W] tail of the best alignment that ends in blank
  int32_t* blank_end;        // [W] the last frame of the last token in it
  int32_t* token_alignment;  // [W] tail of the best alignment that ends in the last token
  float* gain;               // [W] what the last token was worth as context
  float* inside_reach;       // [W] upper bound of the gain of a token inside a word that continues no phrase
  float* phrase_reach;       // [W] the same if it continues one
  float* end_reach;          // [W] upper bound of the gain of the word's end; the gain itself once end_known
  uint8_t* end_known;        // [W]
  double* context_score;     // [W]
  PrefixContext* context;    // [W]
  PrefixTree tree;
  int32_t settled;    // tokens that all prefixes begin with since settle() was here
  int32_t committed;  // tokens of the tree's root, which all prefixes begin with and which are no longer in it
  BegunWord begun;    // the word that those end in
  // Scratch.
  float* row;                // [vocabulary + 1]
  int32_t* parent_slot;      // [W]
  int32_t* new_alignment;    // [W] a better alignment that comes from the parent; −1: none
  CtcCandidate* candidates;  // as many as there is room for
  CtcEntrant* entrants;      // [W]
};

namespace ctc_beam {

ASRKERN_HOST_DEVICE inline void enter(CtcBeam& beam, const ContextModel& model, int32_t slot,
                                      const CtcEntrant& entrant) {
  beam.now.total[slot] = beam.now.token[slot] = entrant.total;
  beam.now.blank[slot] = beam.now.best_blank[slot] = kLogZero;
  beam.now.best_token[slot] = entrant.best;
  beam.last[slot] = entrant.token;
  beam.node[slot] = entrant.node;
  beam.parent[slot] = beam.tree.prefixes[entrant.node].parent;
  beam.blank_alignment[slot] = beam.blank_end[slot] = -1;
  beam.token_alignment[slot] = entrant.alignment;
  beam.gain[slot] = entrant.gain;
  const float credit = hotword_credit(model, entrant.context.hotword_node);
  const float reach = inside_reach(model, entrant.context, credit);
  beam.inside_reach[slot] = reach;
  beam.phrase_reach[slot] = reach + phrase_reach(model, entrant.context);
  beam.end_reach[slot] = word_end_reach(model, entrant.context, credit);
  beam.end_known[slot] = 0;
  beam.context_score[slot] = entrant.context_score;
  beam.context[slot] = entrant.context;
  beam.tree.prefixes[entrant.node].slot = slot;
}

// Makes the beam an empty one.
ASRKERN_HOST_DEVICE inline void clear(CtcBeam& beam, const CtcBeamOptions& options) {
  const int32_t sentinel = options.beam_width;
  beam.count = beam.frame = 0;
  beam.offset = beam.shift = 0;
  beam.spread = -kLogZero;
  beam.tree.prefix_count = beam.tree.alignment_count = 0;
  beam.settled = beam.committed = 0;
  beam.begun = kNoBegunWord;
  beam.last[sentinel] = -1;
  for (const CtcBeamScores& scores : {beam.now, beam.next}) {
    scores.blank[sentinel] = scores.token[sentinel] = scores.total[sentinel] = kLogZero;
    scores.best_blank[sentinel] = scores.best_token[sentinel] = kLogZero;
  }
}

// The beam before the first frame: the empty prefix, as if it ended in blank.
ASRKERN_HOST_DEVICE inline void start(CtcBeam& beam, const ContextModel& model, const CtcBeamOptions& options) {
  clear(beam, options);
  beam.tree.start();
  enter(beam, model, 0, {kLogZero, kLogZero, 0, options.row.vocabulary, kNoWord, 0, -1, 0, context_start(model)});
  beam.now.total[0] = beam.now.blank[0] = beam.now.best_blank[0] = 0;
  beam.count = 1;
}

ASRKERN_HOST_DEVICE inline void leave(CtcBeam& beam, int32_t slot) { beam.tree.prefixes[beam.node[slot]].slot = -1; }

ASRKERN_HOST_DEVICE inline void move(CtcBeam& beam, int32_t from, int32_t to) {
  beam.now.total[to] = beam.now.total[from];
  beam.now.token[to] = beam.now.token[from];
  beam.now.blank[to] = beam.now.blank[from];
  beam.now.best_blank[to] = beam.now.best_blank[from];
  beam.now.best_token[to] = beam.now.best_token[from];
  beam.last[to] = beam.last[from];
  beam.node[to] = beam.node[from];
  beam.parent[to] = beam.parent[from];
  beam.blank_alignment[to] = beam.blank_alignment[from];
  beam.blank_end[to] = beam.blank_end[from];
  beam.token_alignment[to] = beam.token_alignment[from];
  beam.gain[to] = beam.gain[from];
  beam.inside_reach[to] = beam.inside_reach[from];
  beam.phrase_reach[to] = beam.phrase_reach[from];
  beam.end_reach[to] = beam.end_reach[from];
  beam.end_known[to] = beam.end_known[from];
  beam.context_score[to] = beam.context_score[from];
  beam.context[to] = beam.context[from];
  beam.tree.prefixes[beam.node[to]].slot = to;
}

}  // namespace ctc_beam
}  // namespace asrkern
