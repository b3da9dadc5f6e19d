// Builds the graphs of kernels/ctc/token_trie.h: words and phrases, spelled by tokens in every possible way.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace asrkern {

// Texts as numbers (code points, or tokens), one after the other.
struct Texts {
  const uint32_t* symbols;
  const int64_t* begin;  // [count + 1]
  int64_t count;
};

struct TokenEdges {
  std::vector<int32_t> begin, token, target;
  std::vector<int64_t> mask;
};

struct LexiconGraph {
  TokenEdges edges;
  std::vector<int32_t> word_begin, words;
  std::vector<int32_t> parent;   // [nodes] parents come before their children; −1: the root's
  std::vector<uint8_t> spelled;  // [words] whether the tokens can spell it
};

// words: their spellings. A word may have several; word_of[i] is the word of spelling i. tokens: the text that each
// adds, without the boundary between words. kinds: the TokenKind of each token.
LexiconGraph build_lexicon(const Texts& words, const int32_t* word_of, int64_t word_count, const Texts& tokens,
                           const uint8_t* kinds);

// [nodes] the largest score of the words that end at a node or below it. parent, word_begin, words: of the graph.
std::vector<float> best_below(const int32_t* parent, const int32_t* word_begin, const int32_t* words, int64_t nodes,
                              const float* word_scores);

struct HotwordGraph {
  TokenEdges edges;
  std::vector<float> credit, completed, reach;
};

// Builds the automata of phrases for one set of tokens, which it reads once.
class HotwordBuilder {
 public:
  HotwordBuilder(const Texts& tokens, const uint8_t* kinds);
  ~HotwordBuilder();

  // phrases: words with single spaces between them. weights: of each phrase.
  HotwordGraph build(const Texts& phrases, const float* weights) const;

 private:
  class TokensByText;
  const std::unique_ptr<const TokensByText> tokens_;
};

}  // namespace asrkern
