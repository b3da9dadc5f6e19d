// What completes a prefix of the beam to a text: the end of its last word, and its tokens and words read from the last
// to the first, as the trees hold them.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/ctc/ctc_beam.h"

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
  bool first;     // no better one has its text:
  uint64_t text;  // the value of its hash
  // Of all endings with that text, if this is the first of them.
  double text_score;
  double text_am_score;  // log-probability by CTC
};

struct WordSpan {
  uint64_t text;  // the value of its hash
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

// A prefix with its last word ended by a gain.
ASRKERN_HOST_DEVICE inline Ending make_ending(const CtcBeam& beam, int32_t slot, int32_t word, double gain) {
  const double score = beam.offset + beam.now.total[slot] + gain;
  return {slot, word, gain, score, true, 0, score, score - (beam.context_score[slot] + gain)};
}

// One of them; the language model ends its sentence.
ASRKERN_HOST_DEVICE inline Ending ending(const CtcBeam& beam, const ContextModel& model, int32_t slot, int32_t choice,
                                         bool whole_words) {
  const PrefixContext& context = beam.context[slot];
  NGramState after = context.lm, ended;
  int32_t word = kUnknownWord;
  double gain;
  if (whole_words) {
    word = word_of_choice(model, context.lexicon_node, choice);
    gain = word_end_gain(model, context, word, after);
  } else {
    gain = -look_ahead(model, context.lexicon_node) - hotword_credit(model, context.hotword_node);
  }
  if (model.lm) gain += lm_score(model, after, model.lm->eos, ended);
  return make_ending(beam, slot, word, gain);
}

ASRKERN_HOST_DEVICE inline double log_sum(double a, double b) {
  const double high = a > b ? a : b, low = a > b ? b : a;
  return high + log1p(exp(low - high));
}

// Adds a worse ending with the same text. add: alignments are added; else the best one counts.
ASRKERN_HOST_DEVICE inline void join(Ending& first, const Ending& other, bool add) {
  if (!add) return;
  first.text_score = log_sum(first.text_score, other.score);
  first.text_am_score = log_sum(first.text_am_score, other.text_am_score);
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

  // How many are left, those that are no longer in the tree among them.
  ASRKERN_HOST_DEVICE int32_t left() const { return tree.prefixes[node].depth; }

  // token.word: the word that the token ends.
  ASRKERN_HOST_DEVICE bool next(CtcToken& token) {
    const PrefixNode& prefix = tree.prefixes[node];
    if (prefix.parent < 0) return false;
    const AlignmentNode& at = tree.alignments[alignment];
    token = {prefix.token, at.start, end, prefix.word, 0};
    end = at.previous_end + 1;
    alignment = at.parent;
    node = prefix.parent;
    return true;
  }
};

// The words of a prefix from the last to the first; `word` is what its end ends. Once all are read, `text` is that of
// them all, if the texts of tokens are known.
struct WordWalk {
  TokenWalk tokens;
  const ContextModel& model;
  BegunWord begun;
  int32_t word;
  TextHash text = kNoText;
  bool empty = true;

  ASRKERN_HOST_DEVICE WordWalk(const CtcBeam& beam, const ContextModel& model, int32_t slot, int32_t last_word)
      : tokens(beam, slot), model(model), begun(beam.begun), word(last_word) {}

  ASRKERN_HOST_DEVICE bool next(WordSpan& span) {
    bool open = false, whole = false;
    TextHash spelled = kNoText;
    CtcToken token;
    while (!whole && tokens.next(token)) {
      const int32_t index = tokens.left();
      const uint8_t kind = model.token_kinds[token.token];
      if (kind == kEndsWord) {
        word = token.word;
        whole = open;
        continue;
      }
      if (!open) span = {0, word, index, index, token.start, token.end};
      open = true;
      span.first = index;
      span.start = token.start;
      spelled = joined(token_text(model, token.token), spelled);
      if (kind == kBeginsWord) {
        word = token.word;
        whole = true;
      }
    }
    if (!whole && begun.first >= 0) {
      if (!open) span = {0, word, begun.first, begun.last, begun.start, begun.end};
      open = true;
      span.first = begun.first;
      span.start = begun.start;
      spelled = joined(begun.text, spelled);
      begun = kNoBegunWord;
    }
    if (!open) return false;
    const TextHash own = word_text(model, span.word, spelled);
    span.text = own.value;
    if (model.texts) text = joined(empty ? own : joined(own, model.texts[0]), text);
    empty = false;
    return true;
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
