// The prefixes of a beam as a tree of tokens, and their best alignments as a tree of frames: a prefix is one integer,
// and what prefixes have in common is stored once. Nodes are only appended; compact() drops what no prefix of the beam
// needs, so that memory follows the beam and the text, not the frames.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

struct PrefixNode {
  int32_t parent;  // −1: the root, of which there is one: the empty prefix, or one that all begin with
  int32_t token;
  int32_t word;     // the word that the token ended: an index of the lexicon, kUnknownWord or kNoWord
  int32_t depth;    // tokens of the prefix
  int32_t child;    // the first of its children, −1: none
  int32_t sibling;  // the next child of its parent
  int32_t slot;     // its place in the beam, −1: not in it
};

// One token of an alignment. The last token's end is kept beside the alignment, since it still moves.
struct AlignmentNode {
  int32_t parent;        // −1: the first token after the root's
  int32_t start;         // frame where the token begins
  int32_t previous_end;  // frame where the token before it ends (its last)
};

// Both arrays belong to the caller.
struct PrefixTree {
  PrefixNode* prefixes;
  int32_t prefix_count;
  AlignmentNode* alignments;
  int32_t alignment_count;

  ASRKERN_HOST_DEVICE void start() {
    prefixes[0] = {-1, -1, -1, 0, -1, -1, 0};
    prefix_count = 1;
    alignment_count = 0;
  }

  ASRKERN_HOST_DEVICE int32_t add_alignment(const AlignmentNode& node) {
    alignments[alignment_count] = node;
    return alignment_count++;
  }

  ASRKERN_HOST_DEVICE int32_t find_child(int32_t parent, int32_t token, int32_t word) const {
    int32_t node = prefixes[parent].child;
    while (node >= 0 && (prefixes[node].token != token || prefixes[node].word != word)) node = prefixes[node].sibling;
    return node;
  }

  ASRKERN_HOST_DEVICE int32_t add_child(int32_t parent, int32_t token, int32_t word) {
    const int32_t node = prefix_count++;
    PrefixNode& above = prefixes[parent];
    prefixes[node] = {parent, token, word, above.depth + 1, -1, above.child, -1};
    above.child = node;
    return node;
  }

  // The longest prefix that two have in common.
  ASRKERN_HOST_DEVICE int32_t common(int32_t a, int32_t b) const {
    while (a != b) {
      int32_t& deeper = prefixes[a].depth >= prefixes[b].depth ? a : b;
      deeper = prefixes[deeper].parent;
    }
    return a;
  }

  // The longest alignment that two have in common; −1: none. A parent is before its children.
  ASRKERN_HOST_DEVICE int32_t common_alignment(int32_t a, int32_t b) const {
    while (a != b && a >= 0 && b >= 0) {
      int32_t& later = a > b ? a : b;
      later = alignments[later].parent;
    }
    return a == b ? a : -1;
  }

  // Keeps the prefixes and alignments named and what they stem from, and renames those in the lists. `moved`, `marked`:
  // scratch of the larger of the two counts, and one more. Order is kept, so a parent stays before its children.
  ASRKERN_HOST_DEVICE void compact(int32_t* nodes, int32_t node_count, int32_t* const* tails, int32_t lists,
                                   int32_t* moved, int32_t* marked) {
    for (int32_t i = 0; i < prefix_count; ++i) moved[i] = -1;
    for (int32_t i = 0; i < node_count; ++i)
      for (int32_t node = nodes[i]; node >= 0 && moved[node] < 0; node = prefixes[node].parent) moved[node] = 0;
    prefix_count = list_marked(prefix_count, moved, marked);
    for (int32_t i = 0; i < prefix_count; ++i) {
      PrefixNode node = prefixes[marked[i]];
      node.child = node.sibling = -1;
      if (node.parent >= 0) {
        node.parent = moved[node.parent];
        node.sibling = prefixes[node.parent].child;
        prefixes[node.parent].child = i;
      }
      prefixes[i] = node;
    }
    for (int32_t i = 0; i < node_count; ++i) nodes[i] = moved[nodes[i]];

    for (int32_t i = 0; i < alignment_count; ++i) moved[i] = -1;
    for (int32_t list = 0; list < lists; ++list)
      for (int32_t i = 0; i < node_count; ++i)
        for (int32_t node = tails[list][i]; node >= 0 && moved[node] < 0; node = alignments[node].parent)
          moved[node] = 0;
    alignment_count = list_marked(alignment_count, moved, marked);
    for (int32_t i = 0; i < alignment_count; ++i) {
      AlignmentNode node = alignments[marked[i]];
      if (node.parent >= 0) node.parent = moved[node.parent];
      alignments[i] = node;
    }
    for (int32_t list = 0; list < lists; ++list)
      for (int32_t i = 0; i < node_count; ++i)
        if (tails[list][i] >= 0) tails[list][i] = moved[tails[list][i]];
  }

 private:
  // Lists the nodes that are marked with 0 in `moved`, which become their new names. Returns how many.
  ASRKERN_HOST_DEVICE static int32_t list_marked(int32_t count, int32_t* moved, int32_t* marked) {
    int32_t listed = 0;
    // Without branches, which would be guessed wrong half of the time.
    for (int32_t i = 0; i < count; ++i) {
      marked[listed] = i;
      listed += moved[i] >= 0;
    }
    for (int32_t i = 0; i < listed; ++i) moved[marked[i]] = i;
    return listed;
  }
};

}  // namespace asrkern
