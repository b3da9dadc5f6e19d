// A beam search that takes one frame at a time and owns its memory. The memory of the trees follows the beam; of the
// tokens that all prefixes begin with only a list is kept. No torch, no Python.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/ctc/cpu/dispatch.h"
#include "kernels/ctc/ctc_beam_saved.h"
#include "kernels/ctc/ctc_result.h"

namespace asrkern {

// What is known before the last frame has come.
struct CtcPartial {
  CtcHypothesis best;  // without its complete words
  int32_t first;       // the index of its first token
  int32_t words;       // how many are complete: no later frame changes their text, times or confidences
  int32_t stable;      // how many tokens no later frame changes
};

class CtcBeamStream {
 public:
  // search: a number that tells this model and these options from others. Saved states carry it. before: what the
  // language model keeps of the words before the first frame; null: the sentence begins here.
  CtcBeamStream(const ContextModel& model, const CtcBeamOptions& options, uint64_t search = 0,
                const NGramState* before = nullptr)
      : search_(search) {
    allocate(options);
    ctc_beam::start(beam_, model, options);
    if (before) begin_after(model, *before);
    ctc_beam::note_phrase_edges(beam_, model, 0);
  }

  // From the bytes that save() gave. Throws std::invalid_argument if they are anything else.
  explicit CtcBeamStream(const std::string& bytes) : saved_(std::make_unique<SavedBeam>(SavedBeam::read(bytes))) {
    search_ = saved_->head.search;
  }

  // Not to be copied: the beam points into the vectors.
  CtcBeamStream(const CtcBeamStream&) = delete;
  CtcBeamStream& operator=(const CtcBeamStream&) = delete;

  int32_t frames() const { return saved_ ? saved_->head.frame : beam_.frame; }
  int32_t stable_tokens() const { return saved_ ? saved_->stable_tokens() : ctc_beam::stable_tokens(beam_); }
  uint64_t search() const { return search_; }

  // Bytes of the trees, which grow with the tokens in which prefixes differ.
  size_t tree_bytes() const {
    return saved_ ? saved_->tree_bytes()
                  : prefixes_.size() * sizeof(PrefixNode) + alignments_.size() * sizeof(AlignmentNode);
  }

  // Makes a beam of what was saved. False if such a model and such options cannot go on with it.
  bool restore(const ContextModel& model, const CtcBeamOptions& options) {
    if (!saved_) return true;
    if (!fits(*saved_, model, options)) return false;
    allocate(options);
    restore_trees();
    for (const SavedSlot& slot : saved_->slots) restore_slot(model, slot);
    for (const SavedToken& token : saved_->committed) {
      const int32_t ended = beam_.begun.first < 0 ? kNoWord : committed_[beam_.begun.first].word;
      commit(model, {token.token, token.start, token.end, token.word, 0}, ended);
    }
    beam_.committed = int32_t(committed_.size());
    beam_.frame = saved_->head.frame;
    beam_.offset = saved_->head.offset;
    beam_.shift = saved_->head.shift;
    beam_.spread = saved_->head.spread;
    beam_.settled = saved_->head.settled;
    saved_ = nullptr;
    return true;
  }

  // What follows is for streams that are restored.

  // log_probs: [vocabulary]. After an error the beam is as it was.
  CtcError step(const ContextModel& model, const CtcBeamOptions& options, const float* log_probs) {
    if (beam_.frame == INT32_MAX) too_long();
    reserve(options.beam_width);
    return cpu::ctc_kernels().step(beam_, model, options, log_probs);
  }

  // The n-best, as if the utterance ended here. sentence: the language model's sentence ends, too.
  std::vector<CtcHypothesis> results(const ContextModel& model, const CtcBeamOptions& options, int32_t nbest,
                                     bool sentence = true) const {
    const ctc_beam::Over over = sentence ? ctc_beam::Over::kSentence : ctc_beam::Over::kUtterance;
    std::vector<CtcHypothesis> found = ctc_beam::results(beam_, model, options.add, nbest, over, begun());
    for (CtcHypothesis& hypothesis : found)
      hypothesis.tokens.insert(hypothesis.tokens.begin(), committed_.begin(), committed_.begin() + first());
    return found;
  }

  CtcPartial partial(const ContextModel& model, const CtcBeamOptions& options) {
    commit(model);
    std::vector<CtcHypothesis> found =
        ctc_beam::results(beam_, model, options.add, 1, ctc_beam::Over::kNothing, begun());
    return {std::move(found[0]), first(), int32_t(word_begins_.size()), stable_tokens()};
  }

  // Tokens [begin, end) of the complete words, spaces between them included; none beyond those words.
  std::vector<CtcToken> committed(int32_t begin, int32_t end) const {
    const auto at = [this](int32_t i) { return committed_.begin() + std::clamp(i, 0, first()); };
    return {at(begin), std::max(at(begin), at(end))};
  }

  // The index of the first token of complete word `word`; after the last one, of the first token of no complete word.
  int32_t word_begin(int32_t word) const { return size_t(word) < word_begins_.size() ? word_begins_[word] : first(); }

  std::string save() {
    if (saved_) return saved_->write();
    compact();
    SavedBeam saved;
    saved.head.search = search_;
    saved.head.width = width_;
    saved.head.vocabulary = vocabulary_;
    saved.head.offset = beam_.offset;
    saved.head.shift = beam_.shift;
    saved.head.spread = beam_.spread;
    saved.head.frame = beam_.frame;
    saved.head.settled = beam_.settled;
    for (int32_t i = 0; i < beam_.count; ++i) saved.slots.push_back(saved_slot(i));
    for (int32_t i = 0; i < beam_.tree.prefix_count; ++i)
      saved.prefixes.push_back({prefixes_[i].parent, prefixes_[i].token, prefixes_[i].word});
    saved.prefixes[0] = {-1, -1, kNoWord};
    saved.alignments.assign(alignments_.data(), alignments_.data() + beam_.tree.alignment_count);
    for (const CtcToken& token : committed_)
      saved.committed.push_back({token.token, token.start, token.end, token.word});
    return saved.write();
  }

  // One thread at a time.
  std::unique_lock<std::mutex> lock() const { return std::unique_lock(mutex_); }

 private:
  [[noreturn]] static void too_long() {
    throw std::length_error("log_probs: the utterance is too long for one beam search");
  }

  void begin_after(const ContextModel& model, const NGramState& before) {
    PrefixContext& context = beam_.context[0];
    context.lm = before;
    if (!model.lm || !context_fits(model, context))
      throw std::invalid_argument("lm_state: expected a state of the decoder's language model");
  }

  void allocate(const CtcBeamOptions& options) {
    width_ = options.beam_width;
    vocabulary_ = options.row.vocabulary;
    const size_t slots = size_t(width_) + 1, vocabularies = size_t(vocabulary_) + 1;
    for (CtcBeamScores* scores : {&beam_.now, &beam_.next})
      for (float** array : {&scores->blank, &scores->token, &scores->total, &scores->best_blank, &scores->best_token})
        take(*array, slots);
    for (int32_t** array : {&beam_.last, &beam_.node, &beam_.parent, &beam_.blank_alignment, &beam_.blank_end,
                            &beam_.token_alignment, &beam_.parent_slot, &beam_.new_alignment, &beam_.scratch_slots})
      take(*array, slots);
    for (float** array : {&beam_.gain, &beam_.inside_reach, &beam_.phrase_reach, &beam_.end_reach, &beam_.from,
                          &beam_.best_from, &beam_.row_last})
      take(*array, slots);
    for (uint32_t** words : {beam_.phrase_edges, beam_.reachable})
      for (int32_t i = 0; i < 2; ++i) take(words[i], slots);
    take(beam_.end_known, slots);
    take(beam_.context_score, slots);
    take(beam_.context, slots);
    take(beam_.children, slots);
    for (float** array : {&beam_.row, &beam_.row_scratch}) take(*array, vocabularies);
    for (int32_t** array : {&beam_.inside, &beam_.boundary}) take(*array, vocabularies);
    take(beam_.candidates, 4 * slots + kSetTokens);
    take(beam_.totals, 5 * slots + kSetTokens);
    take(beam_.entrants, slots);
    ctc_beam::clear(beam_, options);
    resize_tree(128 * slots);
  }

  template <class T>
  void take(T*& array, size_t count) {
    blocks_.emplace_back((count * sizeof(T) + sizeof(double) - 1) / sizeof(double));
    array = reinterpret_cast<T*>(blocks_.back().data());
  }

  void resize_tree(size_t nodes) {
    if (nodes > size_t(1) << 30) too_long();
    prefixes_.resize(nodes);
    alignments_.resize(nodes);
    moved_.resize(nodes);
    marked_.resize(nodes + 1);
    beam_.tree.prefixes = prefixes_.data();
    beam_.tree.alignments = alignments_.data();
  }

  // Drops the nodes of the trees that no prefix of the beam needs.
  void compact() {
    for (int32_t i = 0; i < beam_.count; ++i) {
      if (is_log_zero(beam_.now.best_blank[i])) beam_.blank_alignment[i] = beam_.blank_end[i] = -1;
      if (is_log_zero(beam_.now.best_token[i])) beam_.token_alignment[i] = -1;
    }
    int32_t* const tails[] = {beam_.blank_alignment, beam_.token_alignment};
    beam_.tree.compact(beam_.node, beam_.count, tails, 2, moved_.data(), marked_.data());
    for (int32_t i = 0; i < beam_.count; ++i) beam_.parent[i] = prefixes_[beam_.node[i]].parent;
  }

  // Room for one more frame.
  void reserve(int32_t width) {
    const size_t needed = 2 * size_t(width);
    const PrefixTree& tree = beam_.tree;
    const auto used = [&] { return std::max(tree.prefix_count, tree.alignment_count) + needed; };
    if (used() <= prefixes_.size()) return;
    compact();
    // Keeps half of it free; else compacting would come too often.
    if (2 * used() > prefixes_.size()) resize_tree(4 * used());
  }

  // The index of the first token that is in no complete word.
  int32_t first() const { return beam_.begun.first < 0 ? beam_.committed : beam_.begun.first; }

  std::vector<CtcToken> begun() const { return {committed_.begin() + first(), committed_.end()}; }

  // Appends the next of the tokens that all prefixes begin with. ended: the word that it ends, or kNoWord.
  void commit(const ContextModel& model, CtcToken token, int32_t ended) {
    BegunWord& begun = beam_.begun;
    const uint8_t kind = model.token_kinds[token.token];
    if (kind != kInsideWord && begun.first >= 0) {
      word_begins_.push_back(begun.first);
      for (size_t i = size_t(begun.first); i < committed_.size(); ++i) {
        committed_[i].word = ended;
        committed_[i].confidence = 1;
      }
      begun = kNoBegunWord;
    }
    if (kind != kEndsWord) {
      const int32_t index = int32_t(committed_.size());
      if (begun.first < 0) begun = {kNoText, index, index, token.start, token.end};
      begun.text = joined(begun.text, token_text(model, token.token));
      begun.last = index;
      begun.end = token.end;
    }
    committed_.push_back(token);
  }

  // Takes out of the trees the tokens that all prefixes begin with in the same frames.
  void commit(const ContextModel& model) {
    PrefixTree& tree = beam_.tree;
    int32_t node = beam_.node[0], alignment = -2;
    for (int32_t i = 0; i < beam_.count; ++i) {
      node = tree.common(node, beam_.node[i]);
      const auto join = [&](float score, int32_t tail) {
        if (!is_log_zero(score)) alignment = alignment == -2 ? tail : tree.common_alignment(alignment, tail);
      };
      join(beam_.now.best_blank[i], beam_.blank_alignment[i]);
      join(beam_.now.best_token[i], beam_.token_alignment[i]);
    }
    int32_t aligned = beam_.committed;
    for (int32_t i = alignment; i >= 0; i = tree.alignments[i].parent) ++aligned;
    // A token's last frame is known only once the next token has begun.
    const int32_t count = std::min(prefixes_[node].depth, aligned - 1);
    if (count <= beam_.committed) return;
    for (; aligned > count + 1; --aligned) alignment = tree.alignments[alignment].parent;
    while (prefixes_[node].depth > count) node = prefixes_[node].parent;
    std::vector<CtcToken> tokens;
    for (int32_t prefix = node, next = alignment; prefixes_[prefix].parent >= 0; prefix = prefixes_[prefix].parent) {
      const int32_t end = alignments_[next].previous_end + 1;
      next = alignments_[next].parent;
      tokens.push_back({prefixes_[prefix].token, alignments_[next].start, end, prefixes_[prefix].word, 0});
    }
    for (size_t i = tokens.size(); i-- > 0;) {
      const int32_t ended = tokens[i].word;
      tokens[i].word = kNoWord;
      commit(model, tokens[i], ended);
    }
    tree.prefixes[node].parent = -1;
    tree.alignments[alignment].parent = -1;
    beam_.committed = count;
  }

  SavedSlot saved_slot(int32_t i) const {
    SavedSlot slot{};
    slot.context_score = beam_.context_score[i];
    slot.blank = beam_.now.blank[i];
    slot.token = beam_.now.token[i];
    slot.total = beam_.now.total[i];
    slot.best_blank = beam_.now.best_blank[i];
    slot.best_token = beam_.now.best_token[i];
    slot.gain = beam_.gain[i];
    slot.node = beam_.node[i];
    slot.blank_alignment = beam_.blank_alignment[i];
    slot.blank_end = beam_.blank_end[i];
    slot.token_alignment = beam_.token_alignment[i];
    slot.context = beam_.context[i];
    return slot;
  }

  static bool fits(const SavedBeam& saved, const ContextModel& model, const CtcBeamOptions& options) {
    if (saved.head.width != options.beam_width || saved.head.vocabulary != options.row.vocabulary) return false;
    for (const SavedSlot& slot : saved.slots)
      // A search never reaches a node of the lexicon that no word goes through.
      if (!context_fits(model, slot.context) || is_log_zero(look_ahead(model, slot.context.lexicon_node))) return false;
    const auto good = [&](const auto& tokens) {
      return std::all_of(tokens.begin(), tokens.end(), [&](const auto& token) {
        return token.token != options.row.blank && token.word < model.lexicon.word_count;
      });
    };
    return good(saved.prefixes) && good(saved.committed);
  }

  void restore_trees() {
    const SavedBeam& saved = *saved_;
    resize_tree(std::max({prefixes_.size(), saved.prefixes.size(), saved.alignments.size()}));
    PrefixTree& tree = beam_.tree;
    const int32_t depth = int32_t(saved.committed.size());
    tree.prefixes[0] = {-1, -1, kNoWord, depth, -1, -1, -1};
    tree.prefix_count = 1;
    for (size_t i = 1; i < saved.prefixes.size(); ++i)
      tree.add_child(saved.prefixes[i].parent, saved.prefixes[i].token, saved.prefixes[i].word);
    std::copy(saved.alignments.begin(), saved.alignments.end(), alignments_.data());
    tree.alignment_count = int32_t(saved.alignments.size());
  }

  void restore_slot(const ContextModel& model, const SavedSlot& slot) {
    const int32_t i = beam_.count++;
    const int32_t token = slot.node == 0 ? vocabulary_ : prefixes_[slot.node].token;
    ctc_beam::enter(beam_, model, i,
                    {slot.total, slot.best_token, slot.gain, token, kNoWord, slot.node, slot.token_alignment,
                     slot.context_score, slot.context});
    beam_.now.blank[i] = slot.blank;
    beam_.now.token[i] = slot.token;
    beam_.now.best_blank[i] = slot.best_blank;
    beam_.blank_alignment[i] = slot.blank_alignment;
    beam_.blank_end[i] = slot.blank_end;
    ctc_beam::note_phrase_edges(beam_, model, i);
  }

  mutable std::mutex mutex_;
  int32_t width_ = 0, vocabulary_ = 0;
  uint64_t search_ = 0;
  std::unique_ptr<SavedBeam> saved_;  // until the first call tells the model
  CtcSerialBeam beam_{};
  std::vector<CtcToken> committed_;   // the tokens of the tree's root; those of complete words have word and confidence
  std::vector<int32_t> word_begins_;  // the first token of each complete word
  std::vector<std::vector<double>> blocks_;
  // Uninitialised: most of it is written before it is read, the rest is never read.
  template <class T>
  class Nodes {
   public:
    T* data() const { return nodes_.get(); }
    size_t size() const { return size_; }
    const T& operator[](size_t i) const { return nodes_[i]; }
    void resize(size_t size) {
      std::unique_ptr<T[]> nodes(new T[size]);
      if (size_) std::memcpy(nodes.get(), nodes_.get(), std::min(size, size_) * sizeof(T));
      nodes_ = std::move(nodes);
      size_ = size;
    }

   private:
    std::unique_ptr<T[]> nodes_;
    size_t size_ = 0;
  };
  Nodes<PrefixNode> prefixes_;
  Nodes<AlignmentNode> alignments_;
  Nodes<int32_t> moved_, marked_;
};

// What a search has found in an utterance. error: kCtcOk, or what is wrong with the frame, and there are no hypotheses.
struct CtcUtterance {
  CtcError error = kCtcOk;
  int64_t frame = -1;
  std::vector<CtcHypothesis> hypotheses;
};

// The n-best of an utterance of `frames` frames. log_probs: [frames, vocabulary].
inline CtcUtterance search_utterance(const ContextModel& model, const CtcBeamOptions& options, int32_t nbest,
                                     const float* log_probs, int64_t frames) {
  CtcBeamStream stream(model, options);
  for (int64_t t = 0; t < frames; ++t)
    if (const CtcError error = stream.step(model, options, log_probs + t * options.row.vocabulary); error != kCtcOk)
      return {error, t, {}};
  return {kCtcOk, -1, stream.results(model, options, nbest)};
}

}  // namespace asrkern
