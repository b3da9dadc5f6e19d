// Scores of many sentences at once, with the memory they need on its way before they wait for it.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "csrc/decoder/tokenizer.h"
#include "kernels/common/ngram.h"

namespace asrkern {

struct WordScore {
  float log_prob;   // log10 P(word | words before)
  int32_t matched;  // words of the n-gram that it comes from
  int32_t word;     // id
};

// The word scores of each sentence, handed to `take(sentence, scores, count)` in the order of the sentences.
// bos: sentences begin after <s>; eos: they end with </s>.
template <class Take>
void ngram_score_sentences(const NGramTables& tables, const Tokenizer& tokenizer,
                           const std::vector<std::string_view>& sentences, bool bos, bool eos, Take&& take) {
  constexpr size_t BLOCK = 256;  // words that are looked up in the vocabulary together
  constexpr size_t AHEAD = 8;    // words between the request for an n-gram's memory and its use
  const NGramState begin = bos ? ngram_bos_state(tables) : ngram_null_state();
  std::vector<uint64_t> hashes;
  std::vector<size_t> ends;  // of each sentence of the block, in `hashes`
  std::vector<WordScore> scores;
  for (size_t first = 0; first < sentences.size(); first += ends.size()) {
    hashes.clear();
    ends.clear();
    for (size_t i = first; i < sentences.size() && hashes.size() < BLOCK; ++i) {
      tokenizer(sentences[i], [&](std::string_view word) {
        hashes.push_back(murmur_hash(word.data(), word.size()));
        tables.words.prefetch_key(hashes.back());
      });
      if (eos) hashes.push_back(0);
      ends.push_back(hashes.size());
    }
    scores.resize(hashes.size());
    for (size_t i = 0; i < hashes.size(); ++i) scores[i].word = ngram_word(tables, hashes[i]);
    for (size_t i = 0; eos && i < ends.size(); ++i) scores[ends[i] - 1].word = tables.eos;

    // The n-grams that a word can be the last of; their words alone make a state, since there are no more.
    size_t asked = 0, sentence_asked = 0;
    NGramState context = begin;
    const auto ask = [&] {
      if (asked == scores.size()) return;
      while (asked == ends[sentence_asked]) {
        context = begin;
        ++sentence_asked;
      }
      const int32_t word = scores[asked++].word;
      ngram_prefetch(tables, context, word);
      if (context.length < tables.order - 1) ++context.length;
      for (int32_t i = context.length - 1; i > 0; --i) context.words[i] = context.words[i - 1];
      context.words[0] = word;
    };
    for (size_t i = 0; i < AHEAD; ++i) ask();
    for (size_t i = 0, at = 0; i < ends.size(); ++i) {
      NGramState states[2] = {begin, {}}, *in = states, *out = states + 1;
      const size_t start = at;
      for (; at < ends[i]; ++at) {
        ask();
        scores[at].log_prob = ngram_score(tables, *in, scores[at].word, *out, &scores[at].matched);
        std::swap(in, out);
      }
      take(first + i, scores.data() + start, at - start);
    }
  }
}

}  // namespace asrkern
