// Makes a ContextModel of arrays that Python holds, and checks them, so that a search never reads outside of them. Of
// arrays on a device only the sizes are checked: asrkern.ops.CTCContext.to checks their values before they go there.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "kernels/ctc/cpu/dispatch.h"
#include "kernels/ctc/ctc_beam.h"

namespace asrkern {

// readable: the values are in this memory, and are checked. Else they are on a device, and only the size is checked.
template <class T>
struct Array {
  const T* data = nullptr;
  int64_t size = 0;
  bool readable = true;
};

// In the order of asrkern.ops.CTCContext.
struct LexiconArrays {
  static constexpr size_t kCount = 9;
  Array<int32_t> edge_begin, edge_token, edge_target;
  Array<int64_t> edge_mask;
  Array<int32_t> word_begin, words, lm_words;
  Array<float> look_ahead, reach;

  // f(array) for each of them.
  template <class F>
  void each(const F& f) {
    f(edge_begin), f(edge_token), f(edge_target), f(edge_mask), f(word_begin), f(words), f(lm_words);
    f(look_ahead), f(reach);
  }
};

struct HotwordArrays {
  static constexpr size_t kCount = 7;
  Array<int32_t> edge_begin, edge_token, edge_target;
  Array<int64_t> edge_mask;
  Array<float> credit, completed, reach;

  template <class F>
  void each(const F& f) {
    f(edge_begin), f(edge_token), f(edge_target), f(edge_mask), f(credit), f(completed), f(reach);
  }
};

struct ContextNumbers {
  double alpha, beta;
  std::optional<double> unk_score;  // none: unknown words are not allowed
  double unknown_look_ahead, begin_reach;

  // f(name, value) for each of them.
  template <class F>
  void each(const F& f) {
    f("alpha", alpha), f("beta", beta), f("unk_score", unk_score);
    f("unknown_look_ahead", unknown_look_ahead), f("begin_reach", begin_reach);
  }
};

// asrkern.ops.CTCContext without its language model. A part whose arrays have size 0 is not there.
struct ContextArrays {
  Array<uint8_t> token_kinds;
  LexiconArrays lexicon;
  HotwordArrays hotwords;
  Array<int32_t> lm_tokens;
  Array<int64_t> texts;
  ContextNumbers numbers;
};

// Makes each of `arrays` a view of the list's element with the same place, by view(element, name, array). The list has
// all elements or none. `name` is the list's in messages.
template <class Arrays, class List, class View>
void view_each(Arrays& arrays, const List& list, const char* name, const View& view) {
  if (list.size() == 0) return;
  if (list.size() != Arrays::kCount)
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(Arrays::kCount) +
                                " tensors or none, received " + std::to_string(list.size()));
  size_t i = 0;
  arrays.each([&](auto& array) { view(list[i++], name, array); });
}

inline void check_array(bool good, const char* name, const std::string& expected) {
  if (!good) throw std::invalid_argument(std::string(name) + ": expected " + expected);
}

// begin: [count + 1], ascending from 0 to the number of entries.
inline void check_runs(const char* name, const Array<int32_t>& begin, int64_t entries) {
  if (!begin.readable) return;
  const bool good = begin.size > 0 && begin.data[0] == 0 && begin.data[begin.size - 1] == entries;
  check_array(good && cpu::ctc_kernels().ascends(begin.data, begin.size), name,
              "the beginnings of runs, ascending from 0 to " + std::to_string(entries));
}

inline void check_range(const char* name, const Array<int32_t>& values, int64_t end) {
  if (!values.readable) return;
  const uint32_t limit = uint32_t(std::clamp<int64_t>(end, 0, INT32_MAX));
  check_array(cpu::ctc_kernels().all_below(values.data, values.size, limit), name,
              "values from 0 to " + std::to_string(end - 1));
}

// Whether each node's mask is the set of its edges' tokens, none of which it has twice. Then the mask is the sum of the
// tokens' bits, and has as many bits as the node has edges. For at most kMaskBits tokens, each of which has its own
// bit.
inline bool masks_are_sums(const Array<int32_t>& edge_begin, const Array<int32_t>& edge_token,
                           const Array<int64_t>& edge_mask) {
  const auto sums = std::make_unique_for_overwrite<uint64_t[]>(size_t(edge_token.size) + 1);
  sums[0] = 0;
  for (int64_t edge = 0; edge < edge_token.size; ++edge) sums[edge + 1] = sums[edge] + mask_of(edge_token.data[edge]);
  return cpu::ctc_kernels().masks_are_differences(edge_mask.data, edge_mask.size, edge_begin.data, sums.get());
}

// Whether each node's mask is the set of its edges' tokens modulo kMaskBits: for vocabularies of any size.
inline bool masks_are_remainders(const Array<int32_t>& edge_begin, const Array<int32_t>& edge_token,
                                 const Array<int64_t>& edge_mask) {
  uint64_t wrong = 0;
  for (int64_t node = 0; node < edge_mask.size; ++node) {
    uint64_t mask = 0;
    for (int32_t edge = edge_begin.data[node]; edge < edge_begin.data[node + 1]; ++edge)
      mask |= mask_of(edge_token.data[edge]);
    wrong |= mask ^ uint64_t(edge_mask.data[node]);
  }
  return wrong == 0;
}

inline TokenTrie make_trie(const char* name, const Array<int32_t>& edge_begin, const Array<int32_t>& edge_token,
                           const Array<int32_t>& edge_target, const Array<int64_t>& edge_mask, int32_t vocabulary) {
  check_array(edge_target.size == edge_token.size, name, "as many targets of edges as tokens");
  check_runs(name, edge_begin, edge_token.size);
  check_range(name, edge_token, vocabulary);
  check_range(name, edge_target, edge_begin.size - 1);
  const bool few_tokens = vocabulary <= kMaskBits;
  bool good = edge_mask.size == edge_begin.size - 1;
  if (good && edge_mask.readable)
    good = (few_tokens ? masks_are_sums : masks_are_remainders)(edge_begin, edge_token, edge_mask);
  check_array(good, name, "each node's mask to be of its tokens, each of them once");
  return {edge_begin.data, edge_token.data, edge_target.data, reinterpret_cast<const uint64_t*>(edge_mask.data),
          few_tokens};
}

inline void check_per_node(const char* name, const Array<float>& values, int64_t nodes) {
  check_array(values.size == nodes, name, std::to_string(nodes) + " values for each node");
  check_array(!values.readable || cpu::ctc_kernels().all_scores(values.data, values.size), name,
              "numbers between -1e20 and 1e20");
}

// lm_vocabulary: words of the language model, 0 without one.
inline Lexicon make_lexicon(const LexiconArrays& arrays, int32_t vocabulary, int64_t lm_vocabulary) {
  Lexicon lexicon{};
  lexicon.trie =
      make_trie("lexicon", arrays.edge_begin, arrays.edge_token, arrays.edge_target, arrays.edge_mask, vocabulary);
  const int64_t nodes = arrays.edge_begin.size - 1;
  check_array(nodes > 0, "lexicon", "at least its root");
  check_array(arrays.word_begin.size == nodes + 1, "lexicon", "the beginning of each node's words");
  check_runs("lexicon", arrays.word_begin, arrays.words.size);
  check_range("lexicon", arrays.words, arrays.lm_words.size);
  if (lm_vocabulary > 0) check_range("lexicon", arrays.lm_words, lm_vocabulary);
  check_per_node("lexicon", arrays.look_ahead, nodes);
  check_per_node("lexicon", arrays.reach, nodes);
  lexicon.nodes = int32_t(nodes);
  lexicon.word_count = int32_t(arrays.lm_words.size);
  lexicon.word_begin = arrays.word_begin.data;
  lexicon.words = arrays.words.data;
  lexicon.lm_words = arrays.lm_words.data;
  lexicon.look_ahead = arrays.look_ahead.data;
  lexicon.reach = arrays.reach.data;
  return lexicon;
}

inline Hotwords make_hotwords(const HotwordArrays& arrays, int32_t vocabulary) {
  Hotwords hotwords{};
  hotwords.trie =
      make_trie("hotwords", arrays.edge_begin, arrays.edge_token, arrays.edge_target, arrays.edge_mask, vocabulary);
  const int64_t nodes = arrays.edge_begin.size - 1;
  check_array(nodes > kHotwordNone, "hotwords", "at least the nodes of no phrase begun and of none to go on with");
  for (const Array<float>* values : {&arrays.credit, &arrays.completed, &arrays.reach})
    check_per_node("hotwords", *values, nodes);
  hotwords.nodes = int32_t(nodes);
  hotwords.credit = arrays.credit.data;
  hotwords.completed = arrays.completed.data;
  hotwords.reach = arrays.reach.data;
  if (!arrays.edge_begin.readable) return hotwords;
  const TokenTrie& trie = hotwords.trie;
  check_array(trie.edge_mask[kHotwordNone] == 0 && hotwords.credit[kHotwordNone] == 0 &&
                  hotwords.completed[kHotwordNone] == 0 && hotwords.reach[kHotwordNone] == 0,
              "hotwords", "a node " + std::to_string(kHotwordNone) + " without edges that is worth nothing");
  for (int32_t edge = trie.edge_begin[kHotwordStart]; edge < trie.edge_begin[kHotwordStart + 1]; ++edge)
    if (trie.edge_token[edge] < kMaskBits)
      hotwords.begin_credit[trie.edge_token[edge]] = hotwords.credit[trie.edge_target[edge]];
  return hotwords;
}

// The most that a token at a word's boundary gains by a phrase that begins there.
inline float hotword_begin_reach(const Hotwords& hotwords, const uint8_t* token_kinds) {
  float most = 0;
  const TokenTrie& trie = hotwords.trie;
  for (int32_t edge = 0; edge < trie.edge_begin[hotwords.nodes]; ++edge)
    if (token_kinds[trie.edge_token[edge]] != kInsideWord)
      most = std::max(most, hotwords.credit[trie.edge_target[edge]]);
  return most;
}

// lm: null without a language model. vocabulary: how many tokens there are, blank among them.
inline ContextModel make_context(const ContextArrays& arrays, const NGramTables* lm, int32_t vocabulary) {
  check_array(arrays.token_kinds.size == vocabulary, "token_kinds", std::to_string(vocabulary) + " values");
  for (int64_t i = 0; arrays.token_kinds.readable && i < vocabulary; ++i)
    check_array(arrays.token_kinds.data[i] <= kBeginsWord, "token_kinds", "0, 1 or 2");
  ContextModel model{};
  model.token_kinds = arrays.token_kinds.data;
  const int64_t lm_vocabulary = lm ? lm->vocabulary : 0;
  if (arrays.lexicon.edge_begin.size) model.lexicon = make_lexicon(arrays.lexicon, vocabulary, lm_vocabulary);
  if (arrays.hotwords.edge_begin.size) model.hotwords = make_hotwords(arrays.hotwords, vocabulary);
  model.vocabulary = vocabulary;
  if (arrays.texts.size) {
    const int64_t texts = 1 + int64_t(vocabulary) + arrays.lexicon.lm_words.size;
    check_array(arrays.texts.size == 2 * texts, "texts", std::to_string(texts) + " hashes, two values each");
    model.texts = reinterpret_cast<const TextHash*>(arrays.texts.data);
  }
  model.lm = lm;
  if (arrays.lm_tokens.size) {
    check_array(lm && arrays.lm_tokens.size == vocabulary, "lm_tokens",
                "a language model and " + std::to_string(vocabulary) + " values");
    check_range("lm_tokens", arrays.lm_tokens, lm_vocabulary);
    model.lm_tokens = arrays.lm_tokens.data;
  }
  // float32 holds such values, and none comes near kLogZero, the score of what is impossible.
  const auto finite = [](double value) { return std::fabs(value) < kLargestScore; };
  const ContextNumbers& numbers = arrays.numbers;
  const bool allow_unknown = numbers.unk_score.has_value();
  const double unk_score = numbers.unk_score.value_or(0);
  check_array(numbers.alpha >= 0 && finite(numbers.alpha), "alpha", "a number from 0 to 1e20");
  check_array(finite(numbers.beta), "beta", "a number between -1e20 and 1e20");
  check_array(finite(unk_score), "unk_score", "a number between -1e20 and 1e20");
  check_array(finite(numbers.unknown_look_ahead) && finite(numbers.begin_reach), "unknown_look_ahead, begin_reach",
              "numbers between -1e20 and 1e20");
  check_array(model.lexicon.nodes || allow_unknown, "lexicon", "one where unknown words are not allowed");
  model.alpha = float(numbers.alpha * std::log(10.0));
  model.beta = float(numbers.beta);
  model.unk_score = float(unk_score);
  model.unknown_look_ahead = float(numbers.unknown_look_ahead);
  model.begin_reach = float(numbers.begin_reach);
  model.allow_unknown = allow_unknown;
  return model;
}

}  // namespace asrkern
