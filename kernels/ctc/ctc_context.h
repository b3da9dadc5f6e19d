// What a prefix of tokens is worth beside its acoustic score: by the words of a lexicon, an n-gram model, hotwords.
// This depends on the prefix alone, so it is kept with the prefix. A token adds what the context gains by it.
//
// Scores are natural logarithms, already weighted. A word's score is added when the word ends. Until then its prefix
// may have an expected score (look_ahead), which is taken back when the word's own score is added.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"
#include "kernels/common/log_space.h"
#include "kernels/ctc/text_hash.h"
#include "kernels/ctc/token_trie.h"
#include "kernels/lm/ngram.h"

namespace asrkern {

// What a token does to words. Between two words, kEndsWord changes nothing.
enum TokenKind : uint8_t {
  kInsideWord = 0,
  kEndsWord = 1,    // a space
  kBeginsWord = 2,  // ends the word before it and begins the next: "▁the"
};

constexpr int32_t kBetweenWords = 0;  // the lexicon's root: no word is begun
constexpr int32_t kUnknownWord = -1;  // inside a word that is not in the lexicon
constexpr int32_t kNotAllowed = -2;   // no word begins like this
constexpr int32_t kHotwordStart = 0;  // the root: a word may begin here, and no phrase is begun
constexpr int32_t kHotwordNone = 1;   // inside a word that continues no phrase: no edges, no credit
constexpr int32_t kNoWord = -2;       // in place of a word: the token ends none

// Words by their tokens. An empty lexicon (nodes = 0) knows no word.
struct Lexicon {
  TokenTrie trie;  // root: kBetweenWords
  int32_t nodes;
  int32_t word_count;
  const int32_t* word_begin;  // [nodes + 1] the words that may end at each node
  const int32_t* words;       // the indices of these words
  const int32_t* lm_words;    // [words] each word's id in the language model
  const float* look_ahead;    // [nodes] the best score expected of the words through a node; 0 at the root
  const float* reach;         // [nodes] the best look_ahead among the targets of a node's edges
};

// Phrases by their tokens, as an automaton (Aho & Corasick 1975) whose suffixes begin where words begin. Where a node
// has no edge for a token that begins a word, kHotwordStart's edge is taken; for any other token the target is
// kHotwordNone.
struct Hotwords {
  TokenTrie trie;          // root: kHotwordStart
  int32_t nodes;           // 0: no hotwords
  const float* credit;     // [nodes] given in advance for the part of a phrase that is there
  const float* completed;  // [nodes] the weights of all phrases that are complete if the word ends here
  const float* reach;      // [nodes] the largest credit among the targets of its edges, at least 0
  // [tokens below kMaskBits] the credit of the target of kHotwordStart's edge. Not filled for a device.
  float begin_credit[kMaskBits];
};

struct ContextModel {
  const uint8_t* token_kinds;  // [vocabulary] TokenKind
  Lexicon lexicon;
  Hotwords hotwords;
  const TextHash* texts;     // [1 + vocabulary + words] what stands between words, tokens, the lexicon's words;
                             // null: prefixes with the same text are separate results
  int32_t vocabulary;        // tokens
  const NGramTables* lm;     // null: none
  const int32_t* lm_tokens;  // [vocabulary] the ids of tokens in a model of tokens; null: a model of words
  float alpha;               // already times ln 10, since the tables hold log10
  float beta;                // added for each word (for each token with a model of tokens)
  bool allow_unknown;
  float unk_score;           // added for each word that is not in the lexicon
  float unknown_look_ahead;  // expected score of a word that has left the lexicon
  float begin_reach;         // the best look-ahead and credit that a token of kBeginsWord can lead to
};

struct PrefixContext {
  int32_t lexicon_node;
  int32_t hotword_node;
  NGramState lm;
};

ASRKERN_HOST_DEVICE inline PrefixContext context_start(const ContextModel& model) {
  PrefixContext start;
  start.lexicon_node = kBetweenWords;
  start.hotword_node = kHotwordStart;
  start.lm = model.lm ? ngram_bos_state(*model.lm) : ngram_null_state();
  return start;
}

// Whether a context may be one of this model: its indices are all within the model's arrays.
ASRKERN_HOST_DEVICE inline bool context_fits(const ContextModel& model, const PrefixContext& context) {
  const int32_t nodes = model.lexicon.nodes ? model.lexicon.nodes : 1;
  if (context.lexicon_node < kUnknownWord || context.lexicon_node >= nodes) return false;
  const int32_t hotword_nodes = model.hotwords.nodes ? model.hotwords.nodes : 1;
  if (context.hotword_node < 0 || context.hotword_node >= hotword_nodes) return false;
  if (context.lm.length < 0 || context.lm.length >= kMaxOrder) return false;
  if (model.lm && context.lm.length >= model.lm->order) return false;
  for (int32_t i = 0; model.lm && i < context.lm.length; ++i)
    if (context.lm.words[i] < 0 || context.lm.words[i] >= model.lm->vocabulary) return false;
  return true;
}

ASRKERN_HOST_DEVICE inline float look_ahead(const ContextModel& model, int32_t node) {
  if (node == kUnknownWord) return model.unknown_look_ahead;
  return model.lexicon.nodes ? model.lexicon.look_ahead[node] : 0.0f;
}

ASRKERN_HOST_DEVICE inline float hotword_credit(const ContextModel& model, int32_t node) {
  return model.hotwords.nodes ? model.hotwords.credit[node] : 0.0f;
}

// The lexicon's node behind a token inside a word, or kUnknownWord or kNotAllowed.
ASRKERN_HOST_DEVICE inline int32_t lexicon_next(const ContextModel& model, int32_t node, int32_t token) {
  if (node != kUnknownWord && model.lexicon.nodes) {
    const int32_t next = model.lexicon.trie.child(node, token);
    if (next != kNoNode) return next;
  }
  return model.allow_unknown ? kUnknownWord : kNotAllowed;
}

ASRKERN_HOST_DEVICE inline int32_t hotword_next(const ContextModel& model, int32_t node, int32_t token) {
  if (model.hotwords.nodes == 0) return kHotwordStart;
  const int32_t next = model.hotwords.trie.child(node, token);
  if (next != kNoNode) return next;
  const uint8_t kind = model.token_kinds[token];
  if (kind == kInsideWord) return kHotwordNone;
  if (kind == kEndsWord) return kHotwordStart;
  const int32_t begun = node == kHotwordStart ? kNoNode : model.hotwords.trie.child(kHotwordStart, token);
  return begun != kNoNode ? begun : kHotwordNone;
}

// How many words may end at this prefix; `choice` below says which of them does. 0: none may.
ASRKERN_HOST_DEVICE inline int32_t word_choices(const ContextModel& model, int32_t lexicon_node) {
  if (lexicon_node == kBetweenWords) return 1;
  if (lexicon_node != kUnknownWord) {
    const int32_t count = model.lexicon.word_begin[lexicon_node + 1] - model.lexicon.word_begin[lexicon_node];
    if (count) return count;
  }
  return model.allow_unknown ? 1 : 0;
}

// The word that `choice` stands for: an index of the lexicon, kUnknownWord, or kNoWord between words.
ASRKERN_HOST_DEVICE inline int32_t word_of_choice(const ContextModel& model, int32_t lexicon_node, int32_t choice) {
  if (lexicon_node == kBetweenWords) return kNoWord;
  if (lexicon_node == kUnknownWord) return kUnknownWord;
  const int32_t begin = model.lexicon.word_begin[lexicon_node];
  return begin == model.lexicon.word_begin[lexicon_node + 1] ? kUnknownWord : model.lexicon.words[begin + choice];
}

// The text that a token adds to its word. Where texts are not known, a hash of the token itself.
ASRKERN_HOST_DEVICE inline TextHash token_text(const ContextModel& model, int32_t token) {
  return model.texts ? model.texts[1 + token] : hash_of_character(uint32_t(token));
}

// The text of a word. spelled: the text of its tokens, which counts where the word is not in the lexicon.
ASRKERN_HOST_DEVICE inline TextHash word_text(const ContextModel& model, int32_t word, const TextHash& spelled) {
  return model.texts && word >= 0 ? model.texts[1 + model.vocabulary + word] : spelled;
}

// The language model's weighted score of a word, and its state after the word. Whatever the tables hold, the score is a
// number, so the search can order its prefixes.
ASRKERN_CALLED float lm_score(const ContextModel& model, const NGramState& before, int32_t word, NGramState& after) {
  const float score = model.alpha * ngram_score(*model.lm, before, word, after);
  // A branch, which is predicted right; with the smaller of two the search would wait for the score.
  if (score > -kLargestScore && score < kLargestScore) return score;
  return score > 0 ? kLargestScore : -kLargestScore;
}

// What the context gains when the current word ends: the word's score, without the look-ahead, and the hotwords'.
// `after` becomes the language model's state behind the word.
ASRKERN_HOST_DEVICE inline float word_end_gain(const ContextModel& model, const PrefixContext& context, int32_t word,
                                               NGramState& after) {
  float gain = -look_ahead(model, context.lexicon_node) - hotword_credit(model, context.hotword_node);
  if (model.hotwords.nodes) gain += model.hotwords.completed[context.hotword_node];
  after = context.lm;
  if (word == kNoWord) return gain;
  if (word == kUnknownWord) gain += model.unk_score;
  if (model.lm_tokens) return gain;
  gain += model.beta;
  if (model.lm) gain += lm_score(model, context.lm, word == kUnknownWord ? kUnk : model.lexicon.lm_words[word], after);
  return gain;
}

// Upper bound of the gain of a token inside a word that continues no phrase. credit: hotword_credit of the context.
ASRKERN_HOST_DEVICE inline float inside_reach(const ContextModel& model, const PrefixContext& context, float credit) {
  const float reach = (model.lm_tokens ? model.beta : 0.0f) - credit;
  if (context.lexicon_node != kUnknownWord && model.lexicon.nodes)
    return reach + model.lexicon.reach[context.lexicon_node] - model.lexicon.look_ahead[context.lexicon_node];
  return context.lexicon_node == kBetweenWords ? reach + model.unknown_look_ahead : reach;
}

// Upper bound of what a token gains on top of that if it continues a phrase.
ASRKERN_HOST_DEVICE inline float phrase_reach(const ContextModel& model, const PrefixContext& context) {
  return model.hotwords.nodes ? model.hotwords.reach[context.hotword_node] : 0.0f;
}

// Upper bound of word_end_gain: the gain if the language model gives the word a probability of 1.
ASRKERN_HOST_DEVICE inline float word_end_reach(const ContextModel& model, const PrefixContext& context, float credit) {
  float reach = -look_ahead(model, context.lexicon_node) - credit;
  if (model.hotwords.nodes) reach += model.hotwords.completed[context.hotword_node];
  if (context.lexicon_node == kBetweenWords) return reach;
  const bool unknown = context.lexicon_node == kUnknownWord || model.unk_score > 0;
  return reach + (model.lm_tokens ? 0.0f : model.beta) + (unknown ? model.unk_score : 0.0f);
}

// The gain of a token by a language model of tokens, with beta.
ASRKERN_HOST_DEVICE inline float lm_token_gain(const ContextModel& model, const NGramState& before, int32_t token,
                                               NGramState& after) {
  return lm_score(model, before, model.lm_tokens[token], after) + model.beta;
}

// The gain of a token inside a word if the language model is not one of tokens: the change of look-ahead and of hotword
// credit from one node to the next.
ASRKERN_HOST_DEVICE inline float inside_gain(float look, float look_before, float credit, float credit_before) {
  return look - look_before + credit - credit_before;
}

// The same without hotwords for tokens that leave the lexicon. kLogZero where unknown words are not allowed.
ASRKERN_HOST_DEVICE inline float unlisted_gain(const ContextModel& model, const PrefixContext& context) {
  return model.allow_unknown ? model.unknown_look_ahead - look_ahead(model, context.lexicon_node) : kLogZero;
}

// The mask of the tokens that continue a word of the lexicon. With a language model of tokens all tokens, since each
// has to be looked up.
ASRKERN_HOST_DEVICE inline uint64_t listed_tokens(const ContextModel& model, const PrefixContext& context) {
  if (model.lm_tokens) return ~0ull;
  return model.lexicon.nodes && context.lexicon_node != kUnknownWord
             ? model.lexicon.trie.edge_mask[context.lexicon_node]
             : 0;
}

// The gain of the word that a token begins; the word before it has its own, word_end_gain. False if no word of the
// lexicon begins with the token.
ASRKERN_HOST_DEVICE inline bool begin_gain(const ContextModel& model, const PrefixContext& context, int32_t token,
                                           float& gain, int32_t& lexicon_node, int32_t& hotword_node) {
  const bool begins = model.token_kinds[token] == kBeginsWord;
  lexicon_node = begins ? lexicon_next(model, kBetweenWords, token) : kBetweenWords;
  if (lexicon_node == kNotAllowed) return false;
  // A second space between words is no boundary.
  hotword_node = !begins && context.lexicon_node == kBetweenWords ? context.hotword_node
                                                                  : hotword_next(model, context.hotword_node, token);
  gain = look_ahead(model, lexicon_node) + hotword_credit(model, hotword_node);
  return true;
}

}  // namespace asrkern
