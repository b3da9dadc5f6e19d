// A team's work on the trees of ctc_prefix_tree.h.
#pragma once

#include <cstdint>

#include "kernels/common/team.h"
#include "kernels/ctc/ctc_prefix_tree.h"

namespace asrkern {

// Puts a node in front of its parent's list of children. Several threads may do so at the same time.
ASRKERN_HOST_DEVICE inline void link_child(PrefixTree& tree, int32_t parent, int32_t node) {
  tree.prefixes[node].sibling = team_exchange(&tree.prefixes[parent].child, node);
}

// Marks a node and its ancestors with 0 in `moved`.
template <class Node>
ASRKERN_HOST_DEVICE void mark_ancestors(const Node* nodes, int32_t node, int32_t* moved) {
  // Where another thread has been, that thread marks the rest.
  while (node >= 0 && team_exchange(&moved[node], 0) < 0) node = nodes[node].parent;
}

// Keeps the marked nodes in their order, with their parents renamed; `moved` becomes their new indices. Returns how
// many there are.
template <class Team, class Node>
ASRKERN_HOST_DEVICE int32_t keep_marked(Team& team, Node* nodes, int32_t count, int32_t* moved) {
  int32_t kept = 0;
  for (int32_t first = 0; first < count; first += team.size()) {
    const int32_t i = first + team.rank();
    const bool keep = i < count && moved[i] >= 0;
    int32_t here;
    const int32_t at = kept + team.scan(keep, here);
    kept += here;
    if (keep) moved[i] = at;
  }
  team.sync();
  for (int32_t first = 0; first < count; first += team.size()) {
    const int32_t i = first + team.rank();
    const bool keep = i < count && moved[i] >= 0;
    Node node;
    if (keep) {
      node = nodes[i];
      if (node.parent >= 0) node.parent = moved[node.parent];
    }
    team.sync();  // every thread has read its nodes
    if (keep) nodes[moved[i]] = node;
  }
  team.sync();
  return kept;
}

// The team's PrefixTree::compact. Lists of children may come out in another order.
template <class Team>
ASRKERN_HOST_DEVICE void compact(Team& team, PrefixTree& tree, int32_t* nodes, int32_t node_count,
                                 int32_t* const* tails, int32_t lists, int32_t* moved) {
  const int32_t rank = team.rank(), size = team.size(), prefixes = tree.prefix_count, tokens = tree.alignment_count;
  for (int32_t i = rank; i < prefixes; i += size) moved[i] = i == 0 ? 0 : -1;
  team.sync();
  for (int32_t i = rank; i < node_count; i += size) mark_ancestors(tree.prefixes, nodes[i], moved);
  team.sync();
  const int32_t kept_prefixes = keep_marked(team, tree.prefixes, prefixes, moved);
  for (int32_t i = rank; i < kept_prefixes; i += size) tree.prefixes[i].child = -1;
  for (int32_t i = rank; i < node_count; i += size) nodes[i] = moved[nodes[i]];
  team.sync();
  for (int32_t i = rank + 1; i < kept_prefixes; i += size) link_child(tree, tree.prefixes[i].parent, i);
  for (int32_t i = rank; i < tokens; i += size) moved[i] = -1;
  team.sync();
  for (int32_t list = 0; list < lists; ++list)
    for (int32_t i = rank; i < node_count; i += size) mark_ancestors(tree.alignments, tails[list][i], moved);
  team.sync();
  const int32_t kept_tokens = keep_marked(team, tree.alignments, tokens, moved);
  for (int32_t list = 0; list < lists; ++list)
    for (int32_t i = rank; i < node_count; i += size)
      if (tails[list][i] >= 0) tails[list][i] = moved[tails[list][i]];
  if (rank == 0) {
    tree.prefix_count = kept_prefixes;
    tree.alignment_count = kept_tokens;
  }
  team.sync();
}

}  // namespace asrkern
