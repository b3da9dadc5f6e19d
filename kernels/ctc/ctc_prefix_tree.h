// The prefixes of a beam as a tree of tokens, their best alignments as a tree of token times. So a prefix is one
// integer, and a common beginning is stored once. Nodes are only appended. compact() drops those that no prefix of the
// beam needs; so memory grows with the beam and the text, not with the frames.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

struct PrefixNode {
  int32_t parent;  // −1: the only root: the empty prefix, or one that all prefixes begin with
  int32_t token;
  int32_t word;     // the word that the token ended: an index of the lexicon, kUnknownWord or kNoWord
  int32_t depth;    // tokens of the prefix
  int32_t child;    // the first of its children, −1: none
  int32_t sibling;  // the next child of its parent
  int32_t slot;     // its place in the beam, −1: not in it
};

// One token of an alignment. The end of the last token still moves, so it is kept beside the alignment.
struct AlignmentNode {
  int32_t parent;        // −1: of the first token behind the root
  int32_t start;         // frame where the token begins
  int32_t previous_end;  // last frame of the token before it
};

// The caller owns both arrays.
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

  // The longest common beginning of two prefixes.
  ASRKERN_HOST_DEVICE int32_t common(int32_t a, int32_t b) const {
    while (a != b) {
      int32_t& deeper = prefixes[a].depth >= prefixes[b].depth ? a : b;
      deeper = prefixes[deeper].parent;
    }
    return a;
  }

  // The longest common beginning of two alignments; −1: none. Parents come before their children.
  ASRKERN_HOST_DEVICE int32_t common_alignment(int32_t a, int32_t b) const {
    while (a != b && a >= 0 && b >= 0) {
      int32_t& later = a > b ? a : b;
      later = alignments[later].parent;
    }
    return a == b ? a : -1;
  }

  // Keeps the named prefixes and alignments with their ancestors, and renames them in the lists. `moved`, `marked`:
  // scratch, as long as the longer of the two arrays and one more. Order is kept, so parents stay before their
  // children.
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
  // Lists the nodes that `moved` marks with 0, and writes their new indices there. Returns how many there are.
  ASRKERN_HOST_DEVICE static int32_t list_marked(int32_t count, int32_t* moved, int32_t* marked) {
    int32_t listed = 0;
    // Without branches: half of them would be predicted wrong.
    for (int32_t i = 0; i < count; ++i) {
      marked[listed] = i;
      listed += moved[i] >= 0;
    }
    for (int32_t i = 0; i < listed; ++i) moved[marked[i]] = i;
    return listed;
  }
};

}  // namespace asrkern
