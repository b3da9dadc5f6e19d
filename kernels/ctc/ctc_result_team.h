// The results of ctc_result.h by a team, written to arrays.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/team.h"
#include "kernels/ctc/ctc_beam_plan.h"
#include "kernels/ctc/ctc_ending.h"

namespace asrkern {

// The n-best of one utterance: [nbest, frames] and [nbest].
struct CtcOutput {
  int32_t* tokens;
  int32_t* timesteps;  // [nbest, frames, 2]
  int32_t* words;
  float* confidences;
  int32_t* token_lengths;
  double* scores;
  double* am_scores;
  int64_t nbest, frames;
};

ASRKERN_HOST_DEVICE inline CtcOutput ctc_output_of_row(const CtcOutput& first, int64_t row) {
  const int64_t before = row * first.nbest * first.frames, ranks = row * first.nbest;
  return {first.tokens + before,
          first.timesteps + 2 * before,
          first.words + before,
          first.confidences + before,
          first.token_lengths + ranks,
          first.scores + ranks,
          first.am_scores + ranks,
          first.nbest,
          first.frames};
}

// Writes that there are no hypotheses.
template <class Team>
ASRKERN_HOST_DEVICE void ctc_clear(Team& team, const CtcOutput& output) {
  for (int64_t i = team.rank(); i < output.nbest * output.frames; i += team.size()) {
    output.tokens[i] = -1;
    output.timesteps[2 * i] = output.timesteps[2 * i + 1] = -1;
    output.words[i] = kNoWord;
    output.confidences[i] = 0;
  }
  for (int64_t i = team.rank(); i < output.nbest; i += team.size()) {
    output.token_lengths[i] = -1;
    output.scores[i] = output.am_scores[i] = -INFINITY;
  }
  team.sync();
}

namespace ctc_beam {

ASRKERN_HOST_DEVICE inline uint64_t text_of(const CtcBeam& beam, const ContextModel& model, const Ending& ending) {
  WordWalk walk(beam, model, ending.slot, ending.word);
  for (WordSpan word; walk.next(word);) continue;
  return walk.text.value;
}

// Makes all endings, in order. −1 if there are more than there is room for.
template <class Team>
ASRKERN_HOST_DEVICE int32_t list_endings(Team& team, CtcTeamBeam& beam, const ContextModel& model) {
  int32_t count = 0;
  for (int32_t cut = 0; cut < 2 && count == 0; ++cut)
    for (int32_t first = 0; first < beam.count; first += team.size()) {
      const int32_t slot = first + team.rank();
      const int32_t choices = slot < beam.count ? ending_choices(beam, model, slot, cut == 0) : 0;
      int32_t here;
      const int32_t at = count + team.scan(choices, here);
      count += here;
      if (count > beam.ending_room) return -1;
      for (int32_t choice = 0; choice < choices; ++choice) {
        Ending& made = beam.endings[at + choice];
        made = ending(beam, model, slot, choice, cut == 0);
        if (model.texts) made.text = text_of(beam, model, made);
      }
    }
  team.sync();
  for (int32_t i = team.rank(); i < count; i += team.size()) {
    const double score = beam.endings[i].score;
    int32_t before = 0;
    for (int32_t k = 0; k < count; ++k)
      before += beam.endings[k].score > score || (beam.endings[k].score == score && k < i);
    beam.order[before] = i;
  }
  team.sync();
  return count;
}

// Lists in beam.ranks the first ending of each text; `endings` are in order. Returns how many texts there are.
template <class Team>
ASRKERN_HOST_DEVICE int32_t rank_texts(Team& team, CtcTeamBeam& beam, const ContextModel& model, int32_t endings,
                                       bool add) {
  int32_t texts = 0;
  for (int32_t i = team.rank(); i < endings; i += team.size()) {
    Ending& own = beam.endings[beam.order[i]];
    for (int32_t k = 0; k < i && model.texts && own.first; ++k)
      own.first = beam.endings[beam.order[k]].text != own.text;
    for (int32_t k = i + 1; k < endings && model.texts && own.first; ++k)
      if (beam.endings[beam.order[k]].text == own.text) join(own, beam.endings[beam.order[k]], add);
    texts += own.first;
  }
  texts = team.sum(texts);
  for (int32_t i = team.rank(); i < endings; i += team.size()) {
    const Ending& own = beam.endings[beam.order[i]];
    int32_t before = 0;
    for (int32_t k = 0; k < endings && own.first; ++k) {
      const Ending& other = beam.endings[beam.order[k]];
      before += other.first && (other.text_score > own.text_score || (other.text_score == own.text_score && k < i));
    }
    if (own.first) beam.ranks[before] = beam.order[i];
  }
  team.sync();
  return texts;
}

ASRKERN_HOST_DEVICE inline void write_tokens(const CtcBeam& beam, const Ending& ending, const CtcOutput& output,
                                             int32_t rank) {
  TokenWalk walk(beam, ending.slot);
  output.token_lengths[rank] = walk.left();
  output.scores[rank] = ending.text_score;
  output.am_scores[rank] = ending.text_am_score;
  for (CtcToken token; walk.next(token);) {
    const int64_t at = rank * output.frames + walk.left();
    output.tokens[at] = token.token;
    output.timesteps[2 * at] = token.start;
    output.timesteps[2 * at + 1] = token.end;
  }
}

// A probability of 1 in units of 2^-62. Sums of integers do not depend on the order of the threads.
constexpr double kShareUnits = 4611686018427387904.0;

// Writes the words of a hypothesis and their confidences.
template <class Team>
ASRKERN_HOST_DEVICE void write_words(Team& team, CtcTeamBeam& beam, const ContextModel& model, int32_t endings,
                                     double best, double sum, const CtcOutput& output, int32_t rank) {
  int32_t words = 0;
  if (team.rank() == 0) {
    const Ending& own = beam.endings[beam.ranks[rank]];
    WordWalk walk(beam, model, own.slot, own.word);
    for (; walk.next(beam.words[words]); ++words) beam.shares[words] = 0;
  }
  words = team.sum(words);
  for (int32_t i = team.rank(); i < endings; i += team.size()) {
    const Ending& other = beam.endings[i];
    const uint64_t share = uint64_t(exp(other.score - best) / sum * kShareUnits);
    SharedWords shared(beam.words, words);
    WordWalk walk(beam, model, other.slot, other.word);
    for (WordSpan span; walk.next(span);) shared.show(span, [&](int32_t word) { team_add(&beam.shares[word], share); });
  }
  team.sync();
  for (int32_t i = team.rank(); i < words; i += team.size())
    for (int32_t k = beam.words[i].first; k <= beam.words[i].last; ++k) {
      output.words[rank * output.frames + k] = beam.words[i].word;
      output.confidences[rank * output.frames + k] = float(double(beam.shares[i]) / kShareUnits);
    }
  team.sync();
}

template <class Team>
ASRKERN_HOST_DEVICE CtcError write_results(Team& team, CtcTeamBeam& beam, const ContextModel& model, bool add,
                                           const CtcOutput& output) {
  const int32_t endings = list_endings(team, beam, model);
  if (endings < 0) return kCtcNoRoom;
  const double best = beam.endings[beam.order[0]].score;
  double sum = 0;
  for (int32_t i = team.rank(); i < endings; i += team.size()) sum += exp(beam.endings[i].score - best);
  sum = team.reduce(sum, [](double a, double b) { return a + b; });
  const int32_t texts = rank_texts(team, beam, model, endings, add);
  const int32_t found = texts < output.nbest ? texts : int32_t(output.nbest);
  for (int32_t i = team.rank(); i < found; i += team.size()) write_tokens(beam, beam.endings[beam.ranks[i]], output, i);
  for (int32_t i = 0; i < found; ++i) write_words(team, beam, model, endings, best, sum, output, i);
  return kCtcOk;
}

}  // namespace ctc_beam
}  // namespace asrkern
