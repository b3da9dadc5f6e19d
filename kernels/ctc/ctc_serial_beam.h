// The beam of a search by one thread: what every search keeps of its prefixes, and scratch for loops over all of them.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_beam.h"

namespace asrkern {

// Where there are no more than kSetTokens tokens each has a bit in a set of tokens, which is two words, so that loops
// over prefixes vectorise.
constexpr int32_t kSetTokens = kMaskBits;
constexpr int32_t kSetWordTokens = 32;

struct CtcSerialBeam : CtcBeam {
  uint32_t* phrase_edges[2];  // [W] the set of tokens that continue a phrase
  // Scratch.
  float* row_scratch;       // [vocabulary]
  int32_t* inside;          // [vocabulary] tokens of the frame, see ctc_collect.h: those inside words,
  int32_t* boundary;        // [vocabulary] and those that end or begin one
  uint32_t* reachable[2];   // [W] the set of tokens inside words that may extend a prefix
  uint64_t* children;       // [W + 1] mask of the tokens of its children that are in the beam
  float* from;              // [W] score that the parent passes on
  float* best_from;         // [W] the same of its best alignment
  float* row_last;          // [W] row[last]
  int32_t* scratch_slots;   // [W + 1]
  int32_t candidate_count;  // of candidates, [4 W + kSetTokens + 1]
  float* totals;            // [5 W + kSetTokens + 1] those of the prefixes that stay, then of the candidates
};

namespace ctc_beam {

// Keeps with a prefix the set of tokens that continue a phrase.
ASRKERN_HOST_DEVICE inline void note_phrase_edges(CtcSerialBeam& beam, const ContextModel& model, int32_t slot) {
  if (!model.hotwords.nodes) return;
  const uint64_t edges = model.hotwords.trie.edge_mask[beam.context[slot].hotword_node];
  beam.phrase_edges[0][slot] = uint32_t(edges);
  beam.phrase_edges[1][slot] = uint32_t(edges >> kSetWordTokens);
}

}  // namespace ctc_beam
}  // namespace asrkern
