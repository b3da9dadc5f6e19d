// The memory of one beam search, which grows with the text and not with the frames. No torch, no Python.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/common/ctc_beam_step.h"
#include "kernels/common/ctc_result.h"
#include "kernels/common/murmur_hash.h"

namespace asrkern {

class CtcBeamStream {
 public:
  // search: a number that tells its model and options from others; states that are saved have it.
  CtcBeamStream(const ContextModel& model, const CtcBeamOptions& options, uint64_t search = 0)
      : CtcBeamStream(options.beam_width, options.row.vocabulary) {
    search_ = search;
    ctc_beam::start(beam_, model, options);
  }

  // What save() gave. Throws std::invalid_argument if it is something else.
  static std::unique_ptr<CtcBeamStream> load(const std::string& bytes) {
    Head head;
    uint64_t hash;
    if (bytes.size() < sizeof head + sizeof hash) damaged();
    const size_t size = bytes.size() - sizeof hash;
    std::memcpy(&head, bytes.data(), sizeof head);
    std::memcpy(&hash, bytes.data() + size, sizeof hash);
    if (hash != murmur_hash(bytes.data(), size)) damaged();
    if (head.format != kFormat || head.width < 1 || head.vocabulary < 1 || head.count < 1 || head.count > head.width ||
        head.prefixes < 1 || head.alignments < 0 || size_t(head.width) > bytes.size())
      damaged();
    std::unique_ptr<CtcBeamStream> stream(new CtcBeamStream(head.width, head.vocabulary));
    stream->read(head, bytes.substr(0, size));
    return stream;
  }

  // The beam points into the vectors.
  CtcBeamStream(const CtcBeamStream&) = delete;
  CtcBeamStream& operator=(const CtcBeamStream&) = delete;

  int32_t frames() const { return beam_.frame; }
  int32_t width() const { return width_; }
  int32_t vocabulary() const { return vocabulary_; }
  // Whether this is a search that such a model and such options may go on with.
  bool fits(const ContextModel& model, const CtcBeamOptions& options) const {
    if (options.beam_width != width_ || options.row.vocabulary != vocabulary_) return false;
    for (int32_t i = 0; i < beam_.count; ++i)
      if (!context_fits(model, beam_.context[i])) return false;
    return true;
  }

  int32_t stable_tokens() const { return ctc_beam::stable_tokens(beam_); }

  // log_probs: [vocabulary]. After an error the beam is as it was.
  CtcError step(const ContextModel& model, const CtcBeamOptions& options, const float* log_probs) {
    reserve();
    // They are of the model, which a saved state is without.
    for (int32_t i = 0; i < beam_.count && !edges_noted_; ++i) ctc_beam::note_phrase_edges(beam_, model, i);
    edges_noted_ = true;
    return ctc_beam::step(beam_, model, options, log_probs);
  }

  std::vector<CtcHypothesis> results(const ContextModel& model, const CtcBeamOptions& options, int32_t nbest,
                                     bool final) const {
    return ctc_beam::results(beam_, model, options.add, nbest, final);
  }

  // One thread at a time.
  std::unique_lock<std::mutex> lock() const { return std::unique_lock(mutex_); }

  uint64_t search() const { return search_; }

  std::string save() const {
    const Head head{search_,
                    kFormat,
                    width_,
                    vocabulary_,
                    beam_.count,
                    beam_.frame,
                    beam_.offset,
                    beam_.shift,
                    beam_.tree.prefix_count,
                    beam_.tree.alignment_count};
    std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
    each_kept([&](auto* values) { bytes.append(reinterpret_cast<const char*>(values), beam_.count * sizeof *values); });
    bytes.append(reinterpret_cast<const char*>(prefixes_.data()), head.prefixes * sizeof(PrefixNode));
    bytes.append(reinterpret_cast<const char*>(alignments_.data()), head.alignments * sizeof(AlignmentNode));
    const uint64_t hash = murmur_hash(bytes.data(), bytes.size());
    bytes.append(reinterpret_cast<const char*>(&hash), sizeof hash);
    return bytes;
  }

  // Bytes of the growing part.
  size_t tree_bytes() const {
    return prefixes_.size() * sizeof(PrefixNode) + alignments_.size() * sizeof(AlignmentNode);
  }

 private:
  static constexpr int32_t kFormat = 0x43544203;

  struct Head {
    uint64_t search;
    int32_t format, width, vocabulary, count, frame;
    double offset;
    float shift;
    int32_t prefixes, alignments;
  };

  CtcBeamStream(int32_t width, int32_t vocabulary) : width_(width), vocabulary_(vocabulary) {
    const size_t slots = size_t(width) + 1, vocabularies = size_t(vocabulary) + 1;
    for (CtcBeamScores* scores : {&beam_.now, &beam_.next})
      for (float** array : {&scores->blank, &scores->token, &scores->total, &scores->best_blank, &scores->best_token})
        *array = allocate<float>(slots);
    for (int32_t** array : {&beam_.last, &beam_.node, &beam_.parent, &beam_.blank_alignment, &beam_.blank_end,
                            &beam_.token_alignment, &beam_.parent_slot, &beam_.new_alignment, &beam_.scratch_slots})
      *array = allocate<int32_t>(slots);
    for (float** array : {&beam_.gain, &beam_.inside_reach, &beam_.phrase_reach, &beam_.end_reach, &beam_.from,
                          &beam_.best_from, &beam_.row_last})
      *array = allocate<float>(slots);
    for (uint32_t** words : {beam_.phrase_edges, beam_.reachable})
      for (int32_t i = 0; i < 2; ++i) words[i] = allocate<uint32_t>(slots);
    beam_.end_known = allocate<uint8_t>(slots);
    beam_.context_score = allocate<double>(slots);
    beam_.context = allocate<PrefixContext>(slots);
    beam_.children = allocate<uint64_t>(slots);
    for (float** array : {&beam_.row, &beam_.row_scratch}) *array = allocate<float>(vocabularies);
    for (int32_t** array : {&beam_.inside, &beam_.boundary}) *array = allocate<int32_t>(vocabularies);
    beam_.candidates = allocate<CtcCandidate>(4 * slots + CTC_REACH_TOKENS);
    beam_.totals = allocate<float>(5 * slots + CTC_REACH_TOKENS);
    beam_.entrants = allocate<CtcEntrant>(slots);
    CtcBeamOptions options{};
    options.beam_width = width;
    ctc_beam::clear(beam_, options);
    resize_tree(128 * slots);
  }

  template <class T>
  T* allocate(size_t count) {
    blocks_.emplace_back((count * sizeof(T) + sizeof(double) - 1) / sizeof(double));
    return reinterpret_cast<T*>(blocks_.back().data());
  }

  // The arrays that make up the state; the others are scratch.
  template <class F>
  void each_kept(const F& f) const {
    for (float* values : {beam_.now.blank, beam_.now.token, beam_.now.total, beam_.now.best_blank, beam_.now.best_token,
                          beam_.gain, beam_.inside_reach, beam_.phrase_reach, beam_.end_reach})
      f(values);
    for (int32_t* values :
         {beam_.last, beam_.node, beam_.parent, beam_.blank_alignment, beam_.blank_end, beam_.token_alignment})
      f(values);
    f(beam_.end_known);
    f(beam_.context_score);
    f(beam_.context);
  }

  void resize_tree(size_t nodes) {
    if (nodes > size_t(1) << 30) throw std::length_error("log_probs: the utterance is too long for one beam search");
    prefixes_.resize(nodes);
    alignments_.resize(nodes);
    moved_.resize(nodes);
    marked_.resize(nodes + 1);
    beam_.tree.prefixes = prefixes_.data();
    beam_.tree.alignments = alignments_.data();
  }

  // Room for one more frame.
  void reserve() {
    const size_t needed = 2 * size_t(width_);
    PrefixTree& tree = beam_.tree;
    if (std::max(tree.prefix_count, tree.alignment_count) + needed <= prefixes_.size()) return;
    int32_t* const tails[] = {beam_.blank_alignment, beam_.token_alignment};
    tree.compact(beam_.node, beam_.count, tails, 2, moved_.data(), marked_.data());
    for (int32_t i = 0; i < beam_.count; ++i) beam_.parent[i] = tree.prefixes[beam_.node[i]].parent;
    // Half of it free, or compacting would come too often.
    const size_t used = std::max(tree.prefix_count, tree.alignment_count) + needed;
    if (2 * used > prefixes_.size()) resize_tree(4 * used);
  }

  [[noreturn]] static void damaged() {
    throw std::invalid_argument("state: expected a saved state of a beam search, received other or damaged bytes");
  }

  void read(const Head& head, const std::string& bytes) {
    size_t at = sizeof head;
    const auto take = [&](void* to, size_t size) {
      if (bytes.size() - at < size) damaged();
      std::memcpy(to, bytes.data() + at, size);
      at += size;
    };
    each_kept([&](auto* values) { take(values, head.count * sizeof *values); });
    if (bytes.size() - at != head.prefixes * sizeof(PrefixNode) + head.alignments * sizeof(AlignmentNode)) damaged();
    resize_tree(std::max(prefixes_.size(), size_t(std::max(head.prefixes, head.alignments))));
    take(prefixes_.data(), head.prefixes * sizeof(PrefixNode));
    take(alignments_.data(), head.alignments * sizeof(AlignmentNode));
    beam_.count = head.count;
    beam_.frame = head.frame;
    beam_.offset = head.offset;
    beam_.shift = head.shift;
    search_ = head.search;
    beam_.tree.prefix_count = head.prefixes;
    beam_.tree.alignment_count = head.alignments;
    check();
  }

  // Nothing read points outside of what there is.
  void check() const {
    const auto need = [](bool good) {
      if (!good) damaged();
    };
    const PrefixTree& tree = beam_.tree;
    for (int32_t i = 0; i < tree.prefix_count; ++i) {
      const PrefixNode& node = prefixes_[i];
      need(i == 0 ? node.parent == -1 && node.depth == 0
                  : node.parent >= 0 && node.parent < i && node.depth == prefixes_[node.parent].depth + 1);
      need(i == 0 || (node.token >= 0 && node.token < vocabulary_));
      need(node.child == -1 || (node.child > i && node.child < tree.prefix_count));
      need(node.sibling >= -1 && node.sibling < i);
      need(node.slot >= -1 && node.slot < beam_.count);
    }
    std::vector<int32_t> depth(tree.alignment_count);
    for (int32_t i = 0; i < tree.alignment_count; ++i) {
      const int32_t parent = alignments_[i].parent;
      need(parent >= -1 && parent < i);
      depth[i] = parent < 0 ? 1 : depth[parent] + 1;
    }
    const auto reaches = [&](float score, int32_t tail, int32_t tokens) {
      need(tail >= -1 && tail < tree.alignment_count);
      need(is_log_zero(score) || (tail < 0 ? 0 : depth[tail]) == tokens);
    };
    for (int32_t i = 0; i < beam_.count; ++i) {
      need(beam_.node[i] >= 0 && beam_.node[i] < tree.prefix_count && prefixes_[beam_.node[i]].slot == i);
      need(beam_.parent[i] == prefixes_[beam_.node[i]].parent);
      need(beam_.last[i] == (beam_.node[i] == 0 ? vocabulary_ : prefixes_[beam_.node[i]].token));
      reaches(beam_.now.best_blank[i], beam_.blank_alignment[i], prefixes_[beam_.node[i]].depth);
      reaches(beam_.now.best_token[i], beam_.token_alignment[i], prefixes_[beam_.node[i]].depth);
      need(!is_log_zero(beam_.now.best_blank[i]) || !is_log_zero(beam_.now.best_token[i]));
    }
  }

  mutable std::mutex mutex_;
  const int32_t width_, vocabulary_;
  uint64_t search_ = 0;
  bool edges_noted_ = false;
  CtcBeam beam_{};
  std::vector<std::vector<double>> blocks_;
  // Not initialised: most of it is written before it is read, and the rest never is.
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

}  // namespace asrkern
