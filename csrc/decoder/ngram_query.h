// Scores of many sentences at once, with the memory they need on its way before they wait for it.
#pragma once

#include <cstdint>
#include <string_view>
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
  constexpr size_t BLOCK = 512;  // words whose memory is asked for before the first of them is scored
  std::vector<uint64_t> hashes;
  std::vector<size_t> ends;  // of each sentence of the block, in `hashes`
  std::vector<WordScore> scores;
  for (size_t first = 0; first < sentences.size();) {
    hashes.clear();
    ends.clear();
    for (size_t i = first; i < sentences.size() && hashes.size() < BLOCK; ++i) {
      tokenizer(sentences[i], [&](std::string_view word) {
        hashes.push_back(murmur_hash(word.data(), word.size()));
        tables.words.prefetch_key(hashes.back());
      });
      ends.push_back(hashes.size());
    }

    scores.clear();
    size_t at = 0;
    for (size_t end : ends) {
      NGramState context = bos ? ngram_bos_state(tables) : ngram_null_state();
      const auto push = [&](int32_t word) {
        ngram_prefetch(tables, context, word);
        scores.push_back({0, 0, word});
        // Of the state only the words are known yet: as many as there can be.
        context.length = context.length < tables.order - 1 ? context.length + 1 : tables.order - 1;
        for (int32_t i = context.length - 1; i > 0; --i) context.words[i] = context.words[i - 1];
        context.words[0] = word;
      };
      for (; at < end; ++at) push(ngram_word(tables, hashes[at]));
      if (eos) push(tables.eos);
    }

    at = 0;
    for (size_t i = 0; i < ends.size(); ++i) {
      NGramState states[2] = {bos ? ngram_bos_state(tables) : ngram_null_state(), {}};
      const size_t count = ends[i] - (i ? ends[i - 1] : 0) + eos;
      for (size_t k = 0; k < count; ++k) {
        WordScore& score = scores[at + k];
        score.log_prob = ngram_score(tables, states[k % 2], score.word, states[1 - k % 2], &score.matched);
      }
      take(first + i, scores.data() + at, count);
      at += count;
    }
    first += ends.size();
  }
}

}  // namespace asrkern
