// A trie, or a graph like one, walked by tokens: children of a node are one sorted run of an array.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

constexpr int32_t kNoNode = -1;

struct TokenTrie {
  const int32_t* edge_begin;   // [nodes + 1] where each node's edges are
  const int32_t* edge_token;   // [edges] ascending within a node
  const int32_t* edge_target;  // [edges]

  // The node that `token` leads to, or kNoNode.
  ASRKERN_HOST_DEVICE int32_t child(int32_t node, int32_t token) const {
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
};

}  // namespace asrkern
