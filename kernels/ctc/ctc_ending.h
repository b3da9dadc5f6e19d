// What makes a text of a prefix of the beam: its last word ends, and its tokens and words are read. The trees hold them
// from the last to the first, so that is the order.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/ctc/ctc_beam.h"

namespace asrkern {

struct CtcToken {
  int32_t token;
  int32_t start;     // its first frame in the best alignment
  int32_t end;       // the frame after its last one
  int32_t word;      // the word that the token is in: an index of the lexicon or kUnknownWord; kNoWord for spaces
  float confidence;  // of that word; 0 for spaces
};

namespace ctc_beam {

// A prefix of the beam whose last word ends, as one of the words that it may be.
struct Ending {
  int32_t slot;
  int32_t word;
  double gain;
  double score;
  bool first;     // no better ending has the same text
  uint64_t text;  // the hash of the text
  // If `first`: of all endings with this text together.
  double text_score;
  double text_am_score;  // log-probability by CTC
};

struct WordSpan {
  uint64_t text;  // the hash of its text
  int32_t word;
  int32_t first, last;  // indices of its tokens
  int32_t start, end;   // its frames
};

// In how many ways a prefix may end at the end of the utterance. whole_words: a last word that is neither in the
// lexicon nor allowed as an unknown word is no way to end; else it ends unfinished.
ASRKERN_HOST_DEVICE inline int32_t ending_choices(const CtcBeam& beam, const ContextModel& model, int32_t slot,
                                                  bool whole_words) {
  return whole_words ? word_choices(model, beam.context[slot].lexicon_node) : 1;
}

// A prefix whose last word ends as `word`, by which the context gains `gain`.
ASRKERN_HOST_DEVICE inline Ending make_ending(const CtcBeam& beam, int32_t slot, int32_t word, double gain) {
  const double score = beam.offset + beam.now.total[slot] + gain;
  return {slot, word, gain, score, true, 0, score, score - (beam.context_score[slot] + gain)};
}

// One of the endings of a prefix. sentence: the language model's sentence ends, too.
ASRKERN_HOST_DEVICE inline Ending ending(const CtcBeam& beam, const ContextModel& model, int32_t slot, int32_t choice,
                                         bool whole_words, bool sentence = true) {
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
  if (model.lm && sentence) gain += lm_score(model, after, model.lm->eos, ended);
  return make_ending(beam, slot, word, gain);
}

ASRKERN_HOST_DEVICE inline double log_sum(double a, double b) {
  const double high = a > b ? a : b, low = a > b ? b : a;
  return high + log1p(exp(low - high));
}

// Adds a worse ending with the same text to the first one. add: alignments are summed; else the best one counts.
ASRKERN_HOST_DEVICE inline void join(Ending& first, const Ending& other, bool add) {
  if (!add) return;
  first.text_score = log_sum(first.text_score, other.score);
  first.text_am_score = log_sum(first.text_am_score, other.text_am_score);
}

// Goes through the tokens of a prefix from the last to the first, with their times in its best alignment.
struct TokenWalk {
  const PrefixTree& tree;
  int32_t node, alignment, end;

  ASRKERN_HOST_DEVICE TokenWalk(const CtcBeam& beam, int32_t slot) : tree(beam.tree), node(beam.node[slot]) {
    const bool blank = beam.now.best_blank[slot] >= beam.now.best_token[slot];
    alignment = blank ? beam.blank_alignment[slot] : beam.token_alignment[slot];
    end = blank ? beam.blank_end[slot] + 1 : beam.frame;
  }

  // How many tokens come before the current one, with those that have left the tree.
  ASRKERN_HOST_DEVICE int32_t left() const { return tree.prefixes[node].depth; }

  // token.word becomes the word that the token ends.
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

// Goes through the words of a prefix from the last to the first. `word`: what its last word ends as. After the first
// word, if the texts of tokens are known, `text` is the text of the whole prefix.
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

// Finds the words of one text that are in another one, too, at overlapping times. Each is found once. The other text's
// words are shown from the last to the first.
struct SharedWords {
  const WordSpan* words;  // of the one text, from the last to the first
  int32_t count;
  int32_t from = 0;   // the words before this one are later than all that will be shown
  int32_t found = 0;  // the words before this one are found or passed

  ASRKERN_HOST_DEVICE SharedWords(const WordSpan* words, int32_t count) : words(words), count(count) {}

  // Calls share(i) for each word that is the same as `other`.
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
