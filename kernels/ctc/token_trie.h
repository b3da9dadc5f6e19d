// A trie (or another graph) whose edges are tokens. The edges of a node stand together in an array.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

constexpr int32_t kNoNode = -1;

// A mask is a set of tokens with a bit for each. In vocabularies of more than kMaskBits tokens, tokens that are equal
// modulo kMaskBits share a bit.
constexpr int32_t kMaskBits = 64;

ASRKERN_HOST_DEVICE inline int32_t mask_place(int32_t token) { return token & (kMaskBits - 1); }
ASRKERN_HOST_DEVICE inline uint64_t mask_of(int32_t token) { return 1ull << mask_place(token); }
ASRKERN_HOST_DEVICE inline bool in_mask(uint64_t mask, int32_t token) { return mask >> mask_place(token) & 1; }

ASRKERN_HOST_DEVICE inline int32_t count_bits(uint64_t bits) {
  bits -= bits >> 1 & 0x5555555555555555ull;
  bits = (bits & 0x3333333333333333ull) + (bits >> 2 & 0x3333333333333333ull);
  return int32_t(((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0full) * 0x0101010101010101ull >> 56);
}

struct TokenTrie {
  const int32_t* edge_begin;   // [nodes + 1] where each node's edges are
  const int32_t* edge_token;   // [edges] ascending within each node
  const int32_t* edge_target;  // [edges]
  const uint64_t* edge_mask;   // [nodes] mask of the tokens of a node's edges
  bool mask_is_exact;          // no tokens share a bit

  ASRKERN_HOST_DEVICE bool has(int32_t node, int32_t token) const {
    if (!in_mask(edge_mask[node], token)) return false;
    return mask_is_exact || child(node, token) != kNoNode;
  }

  // The node behind the edge with this token, or kNoNode.
  ASRKERN_HOST_DEVICE int32_t child(int32_t node, int32_t token) const {
    if (!in_mask(edge_mask[node], token)) return kNoNode;
    return mask_is_exact ? listed_child(node, edge_mask[node], token) : search_child(node, token);
  }

  // The same where tokens share bits. It is a function of its own so that the usual case is short enough to inline.
  ASRKERN_HOST_DEVICE int32_t search_child(int32_t node, int32_t token) const {
    int32_t begin = edge_begin[node], end = edge_begin[node + 1];
    while (begin < end) {
      const int32_t middle = (begin + end) >> 1;
      if (edge_token[middle] < token)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin < edge_begin[node + 1] && edge_token[begin] == token ? edge_target[begin] : kNoNode;
  }

  // The node behind the edge with a token that is in `mask`, the node's mask. For at most kMaskBits tokens.
  ASRKERN_HOST_DEVICE int32_t listed_child(int32_t node, uint64_t mask, int32_t token) const {
    return edge_target[edge_begin[node] + count_bits(mask & ((1ull << token) - 1))];
  }
};

}  // namespace asrkern
