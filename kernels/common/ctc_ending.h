// What completes a prefix of the beam to a text: the end of its last word, and its tokens and words read from the last
// to the first, as the trees hold them.
#pragma once

#include <cstdint>

#include "kernels/common/ctc_beam.h"

namespace asrkern {

struct CtcToken {
  int32_t token;
  int32_t start;     // frames of the best alignment: the first,
  int32_t end;       // and the one after the last
  int32_t word;      // the word that the token is in: an index of the lexicon or kUnknownWord; kNoWord for spaces
  float confidence;  // of that word; 0 for spaces
};

namespace ctc_beam {

// A prefix of the beam with its last word ended in one way.
struct Ending {
  int32_t slot;
  int32_t word;
  double gain;
  double score;
};

struct WordSpan {
  uint64_t text;  // hash of its tokens
  int32_t word;
  int32_t first, last;  // its tokens
  int32_t start, end;   // its frames
};

// In how many ways a prefix may end where the utterance does. whole_words: words that the lexicon does not have as they
// are must not end; else the last one is cut short.
ASRKERN_HOST_DEVICE inline int32_t ending_choices(const CtcBeam& beam, const ContextModel& model, int32_t slot,
                                                  bool whole_words) {
  return whole_words ? word_choices(model, beam.context[slot].lexicon_node) : 1;
}

// One of them; the language model ends its sentence.
ASRKERN_HOST_DEVICE inline Ending ending(const CtcBeam& beam, const ContextModel& model, int32_t slot, int32_t choice,
                                         bool whole_words) {
  const PrefixContext& context = beam.context[slot];
  NGramState after = context.lm, ended;
  Ending result{slot, kUnknownWord, 0, 0};
  if (whole_words) {
    result.word = word_of_choice(model, context.lexicon_node, choice);
    result.gain = word_end_gain(model, context, result.word, after);
  } else {
    result.gain = -look_ahead(model, context.lexicon_node) - hotword_credit(model, context.hotword_node);
  }
  if (model.lm) result.gain += lm_score(model, after, model.lm->eos, ended);
  result.score = beam.offset + beam.now.total[slot] + result.gain;
  return result;
}

// The tokens of a prefix of the beam from the last to the first, with the times of its best alignment.
struct TokenWalk {
  const PrefixTree& tree;
  int32_t node, alignment, end;

  ASRKERN_HOST_DEVICE TokenWalk(const CtcBeam& beam, int32_t slot) : tree(beam.tree), node(beam.node[slot]) {
    const bool blank = beam.now.best_blank[slot] >= beam.now.best_token[slot];
    alignment = blank ? beam.blank_alignment[slot] : beam.token_alignment[slot];
    end = blank ? beam.blank_end[slot] + 1 : beam.frame;
  }

  // How many are left.
  ASRKERN_HOST_DEVICE int32_t left() const { return tree.prefixes[node].depth; }

  // token.word: the word that the token ends.
  ASRKERN_HOST_DEVICE bool next(CtcToken& token) {
    const PrefixNode& prefix = tree.prefixes[node];
    if (prefix.depth == 0) return false;
    const AlignmentNode& at = tree.alignments[alignment];
    token = {prefix.token, at.start, end, prefix.word, 0};
    end = at.previous_end + 1;
    alignment = at.parent;
    node = prefix.parent;
    return true;
  }
};

// The words of a prefix from the last to the first; `word` is what its end ends.
struct WordWalk {
  TokenWalk tokens;
  const uint8_t* token_kinds;
  int32_t word;

  ASRKERN_HOST_DEVICE WordWalk(const CtcBeam& beam, const ContextModel& model, int32_t slot, int32_t last_word)
      : tokens(beam, slot), token_kinds(model.token_kinds), word(last_word) {}

  ASRKERN_HOST_DEVICE bool next(WordSpan& span) {
    uint64_t power = 1;
    bool open = false;
    CtcToken token;
    while (tokens.next(token)) {
      const int32_t index = tokens.left();
      const uint8_t kind = token_kinds[token.token];
      if (kind == kEndsWord) {
        word = token.word;
        if (open) return true;
        continue;
      }
      if (!open) span = {0, word, index, index, token.start, token.end};
      open = true;
      span.first = index;
      span.start = token.start;
      span.text += (uint64_t(token.token) + 1) * power;
      power *= 0x9e3779b97f4a7c15ull;
      if (kind == kBeginsWord) {
        word = token.word;
        return true;
      }
    }
    return open;
  }
};

// Finds the words of one text that another has too at a time that overlaps, each of them once. Words are shown from the
// last to the first.
struct SharedWords {
  const WordSpan* words;  // those of the one, from the last to the first
  int32_t count;
  int32_t from = 0;   // those before begin after what is to come ends
  int32_t found = 0;  // those before have been found or passed

  ASRKERN_HOST_DEVICE SharedWords(const WordSpan* words, int32_t count) : words(words), count(count) {}

  // share(i) for each of the words that is `other`.
  template <class F>
  ASRKERN_HOST_DEVICE void show(const WordSpan& other, const F& share) {
    while (from < count && words[from].start >= other.end) ++from;
    for (int32_t i = from; i < count && words[i].end > other.start; ++i) {
      if (words[i].text != other.text || i < found) continue;
      share(i);
      found = i + 1;
    }
  }
};

}  // namespace ctc_beam
}  // namespace asrkern
