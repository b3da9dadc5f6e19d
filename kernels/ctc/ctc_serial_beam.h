// The beam of a search by one thread: CtcBeam, and scratch for loops over all of its prefixes.
#pragma once

#include <cstdint>

#include "kernels/ctc/ctc_beam.h"

namespace asrkern {

// With at most kSetTokens tokens each token has a bit in a set of tokens. A set is two words of 32 bits, so that loops
// over prefixes vectorise.
constexpr int32_t kSetTokens = kMaskBits;
constexpr int32_t kSetWordTokens = 32;

struct CtcSerialBeam : CtcBeam {
  uint32_t* phrase_edges[2];  // [W] the set of the tokens that continue a phrase
  // Scratch.
  float* row_scratch;       // [vocabulary]
  int32_t* inside;          // [vocabulary] the frame's tokens inside words, see FrameTokens
  int32_t* boundary;        // [vocabulary] the frame's tokens that end or begin a word
  uint32_t* reachable[2];   // [W] the set of the tokens inside words that may extend a prefix
  uint64_t* children;       // [W + 1] mask of the last tokens of its children in the beam
  float* from;              // [W] the score that the parent passes on
  float* best_from;         // [W] the same of the best alignment
  float* row_last;          // [W] row[last]
  int32_t* scratch_slots;   // [W + 1]
  int32_t candidate_count;  // of `candidates`, [4 W + kSetTokens + 1]
  float* totals;            // [5 W + kSetTokens + 1] of the prefixes that stay, then of the candidates
};

namespace ctc_beam {

// Keeps with a prefix the set of the tokens that continue a phrase.
ASRKERN_HOST_DEVICE inline void note_phrase_edges(CtcSerialBeam& beam, const ContextModel& model, int32_t slot) {
  if (!model.hotwords.nodes) return;
  const uint64_t edges = model.hotwords.trie.edge_mask[beam.context[slot].hotword_node];
  beam.phrase_edges[0][slot] = uint32_t(edges);
  beam.phrase_edges[1][slot] = uint32_t(edges >> kSetWordTokens);
}

}  // namespace ctc_beam
}  // namespace asrkern
