// The extensions of a beam by one token that may be among the best of the next frame; see ctc_beam.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/ctc/cpu/ctc_reach.h"
#include "kernels/ctc/cpu/ranking.h"
#include "kernels/ctc/ctc_beam_parts.h"

namespace asrkern {
namespace ctc_beam {
namespace {

// Sorts the candidates by slot, token and choice, the order among equal scores. They already are in order of slots.
inline void order_candidates(CtcSerialBeam& beam) {
  const auto before = [](const CtcCandidate& a, const CtcCandidate& b) {
    return a.token != b.token ? a.token < b.token : a.choice < b.choice;
  };
  CtcCandidate* const candidates = beam.candidates;
  for (int32_t begin = 0, end; begin < beam.candidate_count; begin = end) {
    bool ordered = true;
    for (end = begin + 1; end < beam.candidate_count && candidates[end].slot == candidates[begin].slot; ++end)
      ordered &= !before(candidates[end], candidates[end - 1]);
    if (ordered) continue;
    sort_candidates(candidates + begin, end - begin);
    for (int32_t i = begin; i < end; ++i) beam.totals[beam.count + i] = candidates[i].total;
  }
}

// Keeps the beam_width best of the staying prefixes and the candidates, as far as they reach `limit`. Of equal scores
// the first are kept. Returns the score that a further candidate must exceed.
inline float select(CtcSerialBeam& beam, const CtcBeamOptions& options, float limit) {
  const int32_t width = options.beam_width, stays = beam.count, all = stays + beam.candidate_count;
  float *const totals = beam.totals, *const stay_totals = beam.next.total;
  Cut cut{limit, kNoTies};
  if (all > width && count_from(totals, all, limit) > width) cut = cut_behind(totals, all, width, limit);
  int32_t kept = 0;
  if (cut.ties == kNoTies) {
    for (int32_t i = 0; i < stays; ++i) totals[i] = totals[i] < cut.limit ? kLogZero : totals[i];
    // Without branches, which would be predicted wrong.
    for (int32_t i = 0; i < beam.candidate_count; ++i) {
      beam.candidates[kept] = beam.candidates[i];
      const float total = totals[stays + kept] = totals[stays + i];
      kept += total >= cut.limit;
    }
    beam.candidate_count = kept;
    order_candidates(beam);
  } else {
    order_candidates(beam);
    const auto keep = [&cut](float total) { return total > cut.limit || (total == cut.limit && cut.ties-- > 0); };
    for (int32_t i = 0; i < stays; ++i)
      if (!keep(totals[i])) totals[i] = kLogZero;
    for (int32_t i = 0; i < beam.candidate_count; ++i) {
      if (!keep(totals[stays + i])) continue;
      totals[stays + kept] = totals[stays + i];
      beam.candidates[kept++] = beam.candidates[i];
    }
    beam.candidate_count = kept;
  }
  memcpy(stay_totals, totals, size_t(stays) * sizeof *totals);
  return cut.limit;
}

// Rows of large vocabularies are looked at in blocks of so many tokens, most of which hold nothing of interest.
constexpr int32_t kRowBlock = 32;

// How many tokens of a frame may extend prefixes: all but blank whose value in the row exceeds `least`.
struct FrameTokens {
  int32_t inside = 0, boundary = 0;  // counts of beam.inside and of beam.boundary
  int32_t low = 0;                   // of those inside words, the ones below kSetWordTokens
  float best_inside = 2 * kLogZero;  // the largest value in the row
};

// Lists a frame's tokens. Those at a word's boundary are sorted, the likeliest first; those inside words are in
// ascending order. For at most kSetTokens.
inline FrameTokens list_tokens(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options,
                               float least) {
  const float* row = beam.row;
  FrameTokens tokens;
  for (int32_t v = 0; v < options.row.vocabulary; ++v) {
    if (!(row[v] > least) || v == options.row.blank) continue;
    if (model.token_kinds[v] == kInsideWord) {
      beam.inside[tokens.inside++] = v;
      tokens.low += v < kSetWordTokens;
      tokens.best_inside = row[v] > tokens.best_inside ? row[v] : tokens.best_inside;
    } else {
      beam.boundary[tokens.boundary++] = v;
    }
  }
  order_by_worth(beam.boundary, tokens.boundary, row);
  return tokens;
}

// The same for larger vocabularies; both kinds of tokens are sorted. Of most blocks of tokens none is likely enough.
inline FrameTokens list_likely(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options,
                               float least) {
  const float* const row = beam.row;
  const int32_t vocabulary = options.row.vocabulary;
  FrameTokens tokens;
  for (int32_t begin = 0; begin < vocabulary; begin += kRowBlock) {
    const int32_t end = vocabulary - begin < kRowBlock ? vocabulary : begin + kRowBlock;
    if (end - begin == kRowBlock) {
      int32_t likely = 0;
      for (int32_t i = 0; i < kRowBlock; ++i) likely |= row[begin + i] > least;
      if (!likely) continue;
    }
    for (int32_t v = begin; v < end; ++v) {
      if (!(row[v] > least) || v == options.row.blank) continue;
      if (model.token_kinds[v] == kInsideWord)
        beam.inside[tokens.inside++] = v;
      else
        beam.boundary[tokens.boundary++] = v;
    }
  }
  order_by_worth(beam.inside, tokens.inside, row);
  order_by_worth(beam.boundary, tokens.boundary, row);
  if (tokens.inside) tokens.best_inside = row[beam.inside[0]];
  return tokens;
}

// The likeliest token of a frame that is not blank, of at least two tokens; the first of equal ones.
inline int32_t likeliest(const CtcSerialBeam& beam, const CtcBeamOptions& options) {
  const float* const row = beam.row;
  const int32_t vocabulary = options.row.vocabulary, blank = options.row.blank;
  int32_t best = blank == 0;
  for (int32_t begin = 0; begin < vocabulary; begin += kRowBlock) {
    const int32_t end = vocabulary - begin < kRowBlock ? vocabulary : begin + kRowBlock;
    if (end - begin == kRowBlock) {
      int32_t larger = 0;
      for (int32_t i = 0; i < kRowBlock; ++i) larger |= row[begin + i] > row[best];
      if (!larger) continue;
    }
    for (int32_t v = begin; v < end; ++v)
      if (row[v] > row[best] && v != blank) best = v;
  }
  return best;
}

// Collects extensions above a bar. The bar rises whenever more are collected than the beam can hold.
class Collector {
 public:
  Collector(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options, const FrameTokens& tokens,
            float bar)
      : beam_(beam), model_(model), options_(options), tokens_(tokens) {
    raise_bar(bar);
    beam.candidate_count = 0;
    memcpy(beam.totals, beam.next.total, size_t(beam.count) * sizeof *beam.totals);
  }

  void collect() {
    if (options_.row.vocabulary > kSetTokens) {
      for (int32_t i = 0; i < beam_.count; ++i) {
        inside(i);
        boundary(i);
      }
      return;
    }
    const int32_t count = list_extensible();
    for (int32_t k = 0; k < count; ++k) {
      const int32_t slot = beam_.scratch_slots[k];
      inside_by_bits(slot);
      boundary(slot);
    }
  }

  float bar() const { return bar_; }

 private:
  // For vocabularies of at most kSetTokens: finds for every prefix the tokens inside words that may lead above the bar,
  // into beam_.reachable. Lists in scratch_slots the prefixes that these or a word's boundary may extend; returns how
  // many.
  int32_t list_extensible() {
    const CtcReachPrefixes prefixes{
        beam_.count,     beam_.now.total, beam_.inside_reach, beam_.phrase_reach,
        beam_.now.blank, beam_.last,      beam_.row_last,     model_.hotwords.nodes ? beam_.phrase_edges : nullptr};
    const int32_t *low_tokens = beam_.inside, *high_tokens = beam_.inside + tokens_.low;
    tokens_above(prefixes, low_tokens, tokens_.low, 0, beam_.row, low_, beam_.reachable[0]);
    if (options_.row.vocabulary > kSetWordTokens)
      tokens_above(prefixes, high_tokens, tokens_.inside - tokens_.low, 1, beam_.row, low_, beam_.reachable[1]);
    const float boundary = tokens_.boundary ? beam_.row[beam_.boundary[0]] : 2 * kLogZero;
    int32_t count = 0;
    // Without branches, which would be predicted wrong.
    for (int32_t i = 0; i < beam_.count; ++i) {
      beam_.scratch_slots[count] = i;
      const uint32_t inside = beam_.reachable[0][i] | beam_.reachable[1][i];
      count += (inside != 0) | (boundary_reach(beam_, model_, i, boundary) > low_);
    }
    return count;
  }

  static uint64_t both_words(const uint32_t* const* words, int32_t slot) {
    return uint64_t(words[1][slot]) << kSetWordTokens | words[0][slot];
  }

  // Offers the extensions of a prefix by tokens inside words, for vocabularies of at most kSetTokens. No branches
  // either.
  void inside_by_bits(int32_t slot) {
    const uint64_t reachable = both_words(beam_.reachable, slot);
    if (!reachable) return;
    const PrefixContext& context = beam_.context[slot];
    const TokenTrie& phrases = model_.hotwords.trie;
    const int32_t node = context.hotword_node;
    // A token inside a word leads to one prefix only; if that is in the beam, it is not offered.
    const uint64_t others = reachable & ~beam_.children[slot];
    const uint64_t edges = model_.hotwords.nodes ? both_words(beam_.phrase_edges, slot) : 0;
    const uint64_t listed = listed_tokens(model_, context);
    const float look = look_ahead(model_, context.lexicon_node), before = hotword_credit(model_, node);
    const float unlisted = unlisted_gain(model_, context);
    const float total = beam_.now.total[slot], again = beam_.now.blank[slot], *const row = beam_.row;
    uint64_t off_phrase = others & ~edges;
    if (!(total + (unlisted - before) + tokens_.best_inside > low_)) off_phrase &= listed;

    const int32_t last = beam_.last[slot];
    CtcCandidate* const candidates = beam_.candidates;
    float* const totals = beam_.totals + beam_.count;
    int32_t count = beam_.candidate_count;
    const float bar = bar_;
    const auto offer = [&](int32_t token, float gain) __attribute__((always_inline)) {
      const float extended = (token == last ? again : total) + row[token] + gain;
      candidates[count] = {extended, gain, slot, token, 0};
      totals[count] = extended;
      count += extended > bar;
    };
    const auto extend = [&](int32_t token, float credit) __attribute__((always_inline)) {
      if (!model_.lm_tokens) {
        const int32_t next = model_.lexicon.trie.listed_child(context.lexicon_node, listed, token);
        return offer(token, inside_gain(model_.lexicon.look_ahead[next], look, credit, before));
      }
      float gain;
      if (extension_gain(beam_, model_, slot, token, credit, before, low_, gain)) offer(token, gain);
    };
    // Tokens off all phrases earn no credit; where a phrase may begin, a table has the credit of its first token.
    static constexpr float kNoCredits[kSetTokens] = {};
    const bool begins = node == kHotwordStart;
    const float* const credits = begins ? model_.hotwords.begin_credit : kNoCredits;
    const uint64_t on_phrase = others & edges, tabled = off_phrase | (begins ? on_phrase : 0);
    for (uint64_t bits = tabled & ~listed; bits; bits &= bits - 1) {
      const int32_t token = __builtin_ctzll(bits);
      offer(token, unlisted + credits[token] - before);
    }
    for (uint64_t bits = tabled & listed; bits; bits &= bits - 1) {
      const int32_t token = __builtin_ctzll(bits);
      extend(token, credits[token]);
    }
    for (uint64_t bits = begins ? 0 : on_phrase; bits; bits &= bits - 1) {
      const int32_t token = __builtin_ctzll(bits);
      const float credit = model_.hotwords.credit[phrases.listed_child(node, edges, token)];
      if (listed >> token & 1)
        extend(token, credit);
      else
        offer(token, unlisted + credit - before);
    }
    beam_.candidate_count = count;
    make_room();
  }

  // The same for vocabularies of any size.
  void inside(int32_t slot) {
    const float total = beam_.now.total[slot];
    if (!(total + beam_.phrase_reach[slot] + tokens_.best_inside > low_)) return;
    const PrefixContext& context = beam_.context[slot];
    const TokenTrie& phrases = model_.hotwords.trie;
    const int32_t node = context.hotword_node;
    const bool within = model_.hotwords.nodes && phrases.edge_mask[node];
    const uint64_t listed = listed_tokens(model_, context);
    const float base = total + beam_.inside_reach[slot], before = hotword_credit(model_, context.hotword_node);
    const float unlisted = unlisted_gain(model_, context) - before;
    for (int32_t k = 0; k < tokens_.inside; ++k) {
      const int32_t token = beam_.inside[k];
      if (!(base + beam_.row[token] > low_)) break;
      request(context, beam_.inside, k, tokens_.inside);
      if ((within && phrases.has(node, token)) || in_beam(slot, token, kNoWord)) continue;
      if (in_mask(listed, token))
        extend(slot, token, 0, before);
      else
        offer(slot, token, unlisted);
    }
    // Tokens that continue a phrase have a bound of their own, so that the bound of all others stays low.
    if (!within) return;
    for (int32_t edge = phrases.edge_begin[node]; edge < phrases.edge_begin[node + 1]; ++edge) {
      const int32_t token = phrases.edge_token[edge];
      const float credit = model_.hotwords.credit[phrases.edge_target[edge]];
      if (base + credit + beam_.row[token] > low_ && model_.token_kinds[token] == kInsideWord &&
          !in_beam(slot, token, kNoWord))
        extend(slot, token, credit, before);
    }
  }

  void boundary(int32_t slot) {
    const int32_t lexicon_node = beam_.context[slot].lexicon_node;
    for (int32_t k = 0; k < tokens_.boundary; ++k) {
      const int32_t token = beam_.boundary[k];
      if (!(boundary_reach(beam_, model_, slot, beam_.row[token]) > low_)) return;
      request(beam_.context[slot], beam_.boundary, k, tokens_.boundary);
      float begin;
      if (!boundary_gain(beam_, model_, slot, token, low_, begin)) continue;
      const int32_t choices = word_choices(model_, lexicon_node);
      for (int32_t choice = 0; choice < choices; ++choice) {
        const int32_t word = word_of_choice(model_, lexicon_node, choice);
        const float gain = end_gain(beam_, model_, slot, choices, word) + begin;
        if (!in_beam(slot, token, word)) offer(slot, token, gain, choice);
      }
    }
  }

  // Requests what a language model of tokens has of the token that comes some places behind place k of a list.
  void request(const PrefixContext& context, const int32_t* tokens, int32_t k, int32_t count) const {
    constexpr int32_t kAhead = 6;
    if (model_.lm_tokens && k + kAhead < count)
      ngram_prefetch(*model_.lm, context.lm, model_.lm_tokens[tokens[k + kAhead]]);
  }

  bool in_beam(int32_t slot, int32_t token, int32_t word) const {
    if (!in_mask(beam_.children[slot], token)) return false;
    const int32_t node = beam_.tree.find_child(beam_.node[slot], token, word);
    return node >= 0 && beam_.tree.prefixes[node].slot >= 0;
  }

  void extend(int32_t slot, int32_t token, float credit, float before) {
    float gain;
    if (extension_gain(beam_, model_, slot, token, credit, before, low_, gain)) offer(slot, token, gain);
  }

  void offer(int32_t slot, int32_t token, float gain, int32_t choice = 0) {
    const float total = acoustic(beam_, slot, token) + gain;
    if (!(total > bar_)) return;
    beam_.candidates[beam_.candidate_count] = {total, gain, slot, token, choice};
    beam_.totals[beam_.count + beam_.candidate_count++] = total;
    make_room();
  }

  // Makes room for the candidates of one more prefix: kSetTokens, and one that is written but not counted.
  void make_room() {
    if (beam_.candidate_count < 4 * options_.beam_width) return;
    const float limit = select(beam_, options_, bar_);
    raise_bar(limit > bar_ ? limit : bar_);
  }

  void raise_bar(float bar) {
    bar_ = bar;
    low_ = below(bar);
  }

  CtcSerialBeam& beam_;
  const ContextModel& model_;
  const CtcBeamOptions& options_;
  const FrameTokens tokens_;
  float bar_, low_;  // low_: the bar for bounds, see below()
};

// Collects the extensions that exceed `bar`. Returns whether they and the staying prefixes fill a beam above it.
inline bool collect_above(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options,
                          const FrameTokens& tokens, float bar) {
  Collector collector(beam, model, options, tokens, bar);
  collector.collect();
  return collector.bar() > bar || count_from(beam.totals, beam.count + beam.candidate_count, bar) >= options.beam_width;
}

// The least score that an extension must exceed, and the most that an extension exceeds its token's value in the row.
struct Bounds {
  float bar;
  float base;

  // What a token's value in the row must exceed so that the token may lead above `limit`.
  float least(float limit) const {
    const float value = below(limit) - base;
    return value > 0.5f * kLogZero ? value : 0.5f * kLogZero;
  }
};

// How far below the guess of collect() the last place may be.
constexpr float kGuessMargin = 3.0f;

// The same as collect() for more than kSetTokens tokens: only those that may lead above the guess are listed and
// sorted.
inline void collect_likely(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options,
                           const Bounds& bounds, float best) {
  if (beam.count == options.beam_width) {
    const int32_t token = likeliest(beam, options);
    int32_t slot = 0;
    for (int32_t i = 1; i < beam.count; ++i) slot = beam.now.total[i] > beam.now.total[slot] ? i : slot;
    float extended = acoustic(beam, slot, token);
    NGramState after;
    if (model.lm_tokens) extended += lm_token_gain(model, beam.context[slot].lm, token, after);
    const float guess = (extended > best ? extended : best) - beam.spread - kGuessMargin;
    if (guess > bounds.bar) {
      const FrameTokens tokens = list_likely(beam, model, options, bounds.least(guess));
      if (collect_above(beam, model, options, tokens, guess)) return;
    }
  }
  collect_above(beam, model, options, list_likely(beam, model, options, bounds.least(bounds.bar)), bounds.bar);
}

// Collects the extensions that may be among the best, and the totals of all prefixes.
inline void collect(CtcSerialBeam& beam, const ContextModel& model, const CtcBeamOptions& options) {
  const int32_t count = beam.count;
  const float *now = beam.now.total, *next = beam.next.total, *phrase = beam.phrase_reach, *end = beam.end_reach;
  const float begin_reach = model.begin_reach;
  const float best = largest(count, kLogZero, [next](int32_t i) { return next[i]; });
  const float worst = -largest(count, kLogZero, [next](int32_t i) { return -next[i]; });
  const float best_now = largest(count, kLogZero, [now](int32_t i) { return now[i]; });
  float base = largest(count, 2 * kLogZero, [=](int32_t i) {
    const float boundary = end[i] + begin_reach;
    return now[i] + (phrase[i] > boundary ? phrase[i] : boundary);
  });
  if (model.lm_tokens) base += model.beta > 0 ? model.beta : 0.0f;
  float bar = 0.5f * kLogZero;
  if (best + options.beam_prune_logp > bar) bar = best + options.beam_prune_logp;
  if (count == options.beam_width && worst > bar) bar = worst;
  const Bounds bounds{bar, base};
  if (options.row.vocabulary > kSetTokens) return collect_likely(beam, model, options, bounds, best);
  const FrameTokens tokens = list_tokens(beam, model, options, bounds.least(bar));
  // The last place is mostly as far behind the best as in the frames before. Extensions below that guess need not be
  // collected if those above it fill the beam. If they do not, all are collected again.
  if (count == options.beam_width && tokens.inside > 0) {
    const float extended = best_now + tokens.best_inside;
    const float guess = (extended > best ? extended : best) - beam.spread - kGuessMargin;
    if (guess > bar && collect_above(beam, model, options, tokens, guess)) return;
  }
  collect_above(beam, model, options, tokens, bar);
}

}  // namespace
}  // namespace ctc_beam
}  // namespace asrkern
