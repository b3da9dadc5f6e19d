#include "kernels/ctc/trie_builder.h"

#include <algorithm>
#include <unordered_map>

#include "kernels/ctc/ctc_context.h"

namespace asrkern {
namespace {

constexpr uint32_t kSpace = ' ';
constexpr uint32_t kNoSymbol = UINT32_MAX;  // in no text

// A trie of symbols that is still growing.
class SymbolTrie {
 public:
  SymbolTrie() { add(kNoNode, 0); }

  int32_t size() const { return int32_t(nodes_.size()); }
  int32_t parent(int32_t node) const { return nodes_[node].parent; }
  uint32_t symbol(int32_t node) const { return nodes_[node].symbol; }
  int32_t first_child(int32_t node) const { return nodes_[node].child; }
  int32_t sibling(int32_t node) const { return nodes_[node].sibling; }

  int32_t child(int32_t node, uint32_t symbol) const {
    const auto found = children_.find(key(node, symbol));
    return found == children_.end() ? kNoNode : found->second;
  }

  // The node of a text, which is made if it is not there yet.
  int32_t insert(const uint32_t* begin, const uint32_t* end) {
    int32_t node = 0;
    for (; begin != end; ++begin) {
      const auto [found, fresh] = children_.try_emplace(key(node, *begin), size());
      node = fresh ? add(node, *begin) : found->second;
    }
    return node;
  }

 private:
  struct Node {
    int32_t parent, child, sibling;
    uint32_t symbol;
  };

  static uint64_t key(int32_t node, uint32_t symbol) { return uint64_t(node) << 32 | symbol; }

  int32_t add(int32_t parent, uint32_t symbol) {
    const int32_t node = size();
    nodes_.push_back({parent, kNoNode, parent < 0 ? kNoNode : nodes_[parent].child, symbol});
    if (parent >= 0) nodes_[parent].child = node;
    return node;
  }

  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, int32_t> children_;
};

// The tokens in a trie by their texts.
class TokenTexts {
 public:
  TokenTexts(const Texts& tokens, const uint8_t* kinds) : kinds_(kinds, kinds + tokens.count) {
    std::vector<int32_t> node_of(tokens.count);
    for (int64_t t = 0; t < tokens.count; ++t)
      node_of[t] = trie_.insert(tokens.symbols + tokens.begin[t], tokens.symbols + tokens.begin[t + 1]);
    here_.resize(trie_.size());
    for (int64_t t = 0; t < tokens.count; ++t) here_[node_of[t]].push_back(int32_t(t));
  }

  int64_t count() const { return int64_t(kinds_.size()); }

  bool at_boundary(int32_t token) const { return kinds_[token] != kInsideWord; }

  // Calls found(token, target) for each token whose text leads from `from` down to a node of `trie`. boundary: tokens
  // at a word's boundary; else those inside words.
  template <class F>
  void descend(const SymbolTrie& trie, int32_t from, bool boundary, const F& found, int32_t at = 0) const {
    for (const int32_t token : here_[at])
      if (at_boundary(token) == boundary) found(token, from);
    if (trie_.first_child(at) == kNoNode) return;
    for (int32_t node = trie.first_child(from); node != kNoNode; node = trie.sibling(node)) {
      const int32_t next = trie_.child(at, trie.symbol(node));
      if (next != kNoNode) descend(trie, node, boundary, found, next);
    }
  }

 private:
  SymbolTrie trie_;
  std::vector<std::vector<int32_t>> here_;
  std::vector<uint8_t> kinds_;
};

// Collects edges, node by node.
class EdgeWriter {
 public:
  explicit EdgeWriter(int32_t nodes) { edges_.begin.reserve(nodes + 1); }

  void add(int32_t token, int32_t target) { here_.emplace_back(token, target); }

  void end_node() {
    std::sort(here_.begin(), here_.end());
    edges_.begin.push_back(int32_t(edges_.token.size()));
    uint64_t mask = 0;
    for (const auto& [token, target] : here_) {
      edges_.token.push_back(token);
      edges_.target.push_back(target);
      mask |= mask_of(token);
    }
    edges_.mask.push_back(int64_t(mask));
    here_.clear();
  }

  TokenEdges take() {
    edges_.begin.push_back(int32_t(edges_.token.size()));
    return std::move(edges_);
  }

  // The edges that lead to good nodes.
  static TokenEdges only(const TokenEdges& edges, const std::vector<uint8_t>& good) {
    const int32_t nodes = int32_t(edges.begin.size()) - 1;
    EdgeWriter writer(nodes);
    for (int32_t node = 0; node < nodes; ++node) {
      for (int32_t edge = edges.begin[node]; edge < edges.begin[node + 1]; ++edge)
        if (good[edges.target[edge]]) writer.add(edges.token[edge], edges.target[edge]);
      writer.end_node();
    }
    return writer.take();
  }

 private:
  TokenEdges edges_;
  std::vector<std::pair<int32_t, int32_t>> here_;
};

}  // namespace

LexiconGraph build_lexicon(const Texts& words, const int32_t* word_of, int64_t word_count, const Texts& tokens,
                           const uint8_t* kinds) {
  SymbolTrie trie;
  std::vector<int32_t> node_of(words.count);
  for (int64_t i = 0; i < words.count; ++i)
    node_of[i] = trie.insert(words.symbols + words.begin[i], words.symbols + words.begin[i + 1]);
  const int32_t nodes = trie.size();

  // Only the root has edges by tokens that begin words. A text without symbols makes no edge.
  const TokenTexts texts(tokens, kinds);
  EdgeWriter writer(nodes);
  std::vector<uint8_t> reached(nodes);
  reached[0] = 1;
  for (int32_t node = 0; node < nodes; ++node) {
    const auto add = [&](int32_t token, int32_t target) {
      if (target == node) return;
      writer.add(token, target);
      if (reached[node]) reached[target] = 1;
    };
    texts.descend(trie, node, false, add);
    if (node == 0) texts.descend(trie, node, true, add);
    writer.end_node();
  }

  LexiconGraph graph;
  const TokenEdges edges = writer.take();
  graph.parent.resize(nodes);
  for (int32_t node = 0; node < nodes; ++node) graph.parent[node] = trie.parent(node);
  graph.spelled.assign(word_count, 0);
  std::vector<std::pair<int32_t, int32_t>> ends;  // node, word
  for (int64_t i = 0; i < words.count; ++i) {
    if (!reached[node_of[i]] || node_of[i] == 0) continue;
    graph.spelled[word_of[i]] = 1;
    ends.emplace_back(node_of[i], word_of[i]);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  // Beginnings of words that no tokens can spell are those of unknown words, so they leave the graph. Edges lead to
  // later nodes, hence from the last to the first.
  std::vector<uint8_t> goes_on(nodes);
  for (const auto& [node, word] : ends) goes_on[node] = 1;
  for (int32_t node = nodes; node-- > 0;)
    for (int32_t edge = edges.begin[node]; edge < edges.begin[node + 1]; ++edge)
      goes_on[node] |= goes_on[edges.target[edge]];
  graph.edges = EdgeWriter::only(edges, goes_on);
  graph.word_begin.assign(nodes + 1, 0);
  for (const auto& [node, word] : ends) {
    ++graph.word_begin[node + 1];
    graph.words.push_back(word);
  }
  for (int32_t node = 0; node < nodes; ++node) graph.word_begin[node + 1] += graph.word_begin[node];
  return graph;
}

std::vector<float> best_below(const int32_t* parent, const int32_t* word_begin, const int32_t* words, int64_t nodes,
                              const float* word_scores) {
  std::vector<float> best(nodes, kLogZero);
  for (int64_t node = nodes; node-- > 0;) {
    for (int32_t i = word_begin[node]; i < word_begin[node + 1]; ++i)
      best[node] = std::max(best[node], word_scores[words[i]]);
    if (parent[node] >= 0) best[parent[node]] = std::max(best[parent[node]], best[node]);
  }
  return best;
}

class HotwordBuilder::TokensByText : public TokenTexts {
 public:
  using TokenTexts::TokenTexts;
};

HotwordBuilder::HotwordBuilder(const Texts& tokens, const uint8_t* kinds)
    : tokens_(std::make_unique<TokensByText>(tokens, kinds)) {}

HotwordBuilder::~HotwordBuilder() = default;

HotwordGraph HotwordBuilder::build(const Texts& phrases, const float* weights) const {
  SymbolTrie trie;
  trie.insert(&kNoSymbol, &kNoSymbol + 1);  // kHotwordNone, a node without edges
  std::vector<int32_t> node_of(phrases.count);
  for (int64_t i = 0; i < phrases.count; ++i)
    node_of[i] = trie.insert(phrases.symbols + phrases.begin[i], phrases.symbols + phrases.begin[i + 1]);
  const int32_t nodes = trie.size();

  HotwordGraph graph;
  graph.completed.assign(nodes, 0);
  graph.credit.assign(nodes, 0);
  // The credit of a node is the part that is spelled of the phrase below it that needs the fewest symbols more.
  std::vector<int64_t> shortest(nodes, INT64_MAX);
  for (int64_t i = 0; i < phrases.count; ++i) {
    const int64_t length = phrases.begin[i + 1] - phrases.begin[i];
    graph.completed[node_of[i]] += weights[i];
    int64_t depth = length;
    for (int32_t node = node_of[i]; node > 0; node = trie.parent(node), --depth) {
      if (length >= shortest[node]) continue;
      shortest[node] = length;
      graph.credit[node] = float(double(weights[i]) * double(depth) / double(length));
    }
  }

  // A node's suffix comes before it by depth, since it is shorter; it may have been added later.
  std::vector<int32_t> order(nodes), depth(nodes, 0), suffix(nodes, kHotwordNone);
  for (int32_t node = 0; node < nodes; ++node) {
    order[node] = node;
    depth[node] = node ? depth[trie.parent(node)] + 1 : 0;
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return depth[a] < depth[b]; });
  for (const int32_t node : order) {
    if (node == kHotwordStart || node == kHotwordNone) continue;
    int32_t from = suffix[trie.parent(node)];
    while (from != kHotwordNone && trie.child(from, trie.symbol(node)) == kNoNode) from = suffix[from];
    if (from != kHotwordNone)
      suffix[node] = trie.child(from, trie.symbol(node));
    else if (trie.symbol(node) == kSpace)
      suffix[node] = kHotwordStart;
    if (suffix[node] != kHotwordNone) graph.completed[node] += graph.completed[suffix[node]];
  }

  const TokenTexts& texts = *tokens_;
  EdgeWriter writer(nodes);
  std::vector<int32_t> set_by(texts.count(), -1);  // the node for which a token's edge was set last
  for (int32_t node = 0; node < nodes; ++node) {
    const bool between_words = node == 0 || trie.symbol(node) == kSpace;
    for (int32_t from = node; from != kHotwordNone; from = suffix[from]) {
      const auto add = [&](int32_t token, int32_t target) {
        if (set_by[token] == node || (target == from && from == 0)) return;
        set_by[token] = node;
        writer.add(token, target);
      };
      texts.descend(trie, from, false, add);
      const int32_t after_space = between_words ? from : trie.child(from, kSpace);
      if (after_space != kNoNode) texts.descend(trie, after_space, true, add);
    }
    writer.end_node();
  }
  graph.edges = writer.take();
  graph.reach.assign(nodes, 0);
  for (int32_t node = 0; node < nodes; ++node)
    for (int32_t edge = graph.edges.begin[node]; edge < graph.edges.begin[node + 1]; ++edge)
      graph.reach[node] = std::max(graph.reach[node], graph.credit[graph.edges.target[edge]]);
  return graph;
}

}  // namespace asrkern
