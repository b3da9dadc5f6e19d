// The saved form of a beam search in progress. It may come from anywhere, so all that is read is checked before a
// search goes on with it, and reading takes no more memory than there are bytes. No torch, no Python.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/common/murmur_hash.h"
#include "kernels/ctc/ctc_beam.h"

namespace asrkern {

struct SavedHead {
  uint64_t search;  // tells the model and the options: CtcBeamStream's `search`
  double offset;
  float shift, spread;
  int32_t format, width, vocabulary, frame, settled;
  int32_t slots, prefixes, alignments, committed;  // how many of each follow
  int32_t unused;
};

// A prefix of the beam, with the fields of CtcBeam. What follows from the model or from the trees is not saved.
struct SavedSlot {
  double context_score;
  float blank, token, total, best_blank, best_token, gain;
  int32_t node, blank_alignment, blank_end, token_alignment;  // alignments are −1 where impossible
  PrefixContext context;
  int32_t unused;
};

struct SavedPrefix {
  int32_t parent, token, word;
};

// A token that all prefixes begin with, its frames, and the word that it is part of.
struct SavedToken {
  int32_t token, start, end, word;
};

static_assert(sizeof(SavedHead) == 64 && sizeof(SavedSlot) == 104 && sizeof(AlignmentNode) == 12);

class SavedBeam {
 public:
  SavedHead head{};
  std::vector<SavedSlot> slots;
  std::vector<SavedPrefix> prefixes;  // the root first, parents before children; every node begins a prefix of the beam
  std::vector<AlignmentNode> alignments;  // parents before children
  std::vector<SavedToken> committed;

  // Throws std::invalid_argument unless the bytes are those of write().
  static SavedBeam read(const std::string& bytes) {
    SavedBeam beam;
    beam.take(bytes);
    beam.check_committed();
    beam.check_prefixes();
    beam.check_alignments();
    beam.check_slots();
    return beam;
  }

  std::string write() {
    head.format = kFormat;
    head.slots = int32_t(slots.size());
    head.prefixes = int32_t(prefixes.size());
    head.alignments = int32_t(alignments.size());
    head.committed = int32_t(committed.size());
    std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
    each_array([&](auto& values, int32_t) {
      bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
    });
    const uint64_t hash = murmur_hash(bytes.data(), bytes.size());
    return bytes.append(reinterpret_cast<const char*>(&hash), sizeof hash);
  }

  // How many tokens all prefixes begin with.
  int32_t stable_tokens() const {
    int32_t node = slots[0].node, depth = int32_t(committed.size());
    for (const SavedSlot& slot : slots)
      for (int32_t other = slot.node; node != other;) {
        int32_t& later = node > other ? node : other;
        later = prefixes[later].parent;
      }
    for (; node > 0; node = prefixes[node].parent) ++depth;
    return depth;
  }

  size_t tree_bytes() const { return prefixes.size() * sizeof(PrefixNode) + alignments.size() * sizeof(AlignmentNode); }

 private:
  static constexpr int32_t kFormat = 0x43544204;

  [[noreturn]] static void damaged() {
    throw std::invalid_argument("state: expected a saved state of a beam search, received other or damaged bytes");
  }

  static void need(bool good) {
    if (!good) damaged();
  }

  // Calls f(array, the array's size in the head) for each array.
  template <class F>
  void each_array(const F& f) {
    f(slots, head.slots);
    f(prefixes, head.prefixes);
    f(alignments, head.alignments);
    f(committed, head.committed);
  }

  void take(const std::string& bytes) {
    uint64_t hash;
    need(bytes.size() >= sizeof head + sizeof hash);
    const size_t size = bytes.size() - sizeof hash;
    std::memcpy(&head, bytes.data(), sizeof head);
    std::memcpy(&hash, bytes.data() + size, sizeof hash);
    need(hash == murmur_hash(bytes.data(), size));
    need(head.format == kFormat && head.width >= 1 && head.vocabulary >= 1 && head.frame >= 0 && head.settled >= 0);
    need(head.slots >= 1 && head.slots <= head.width && head.prefixes >= 1);
    need(std::fabs(head.offset) < 1e40 && std::fabs(head.spread) <= -kLogZero);
    uint64_t expected = sizeof head;
    each_array([&](auto& values, int32_t count) {
      need(count >= 0);
      expected += uint64_t(count) * sizeof values[0];
    });
    need(size == expected);
    size_t at = sizeof head;
    each_array([&](auto& values, int32_t count) {
      values.resize(size_t(count));
      const size_t part = values.size() * sizeof values[0];
      if (part) std::memcpy(values.data(), bytes.data() + at, part);
      at += part;
    });
  }

  bool is_token(int32_t token) const { return token >= 0 && token < head.vocabulary; }

  void check_committed() const {
    int32_t end = 0;
    for (const SavedToken& token : committed) {
      need(is_token(token.token) && token.word >= kNoWord);
      need(token.start >= end && token.start < token.end && token.end <= head.frame);
      end = token.end;
    }
  }

  void check_prefixes() {
    need(prefixes[0].parent == -1 && prefixes[0].token == -1 && prefixes[0].word == kNoWord);
    depths_.assign(prefixes.size(), head.committed);
    std::vector<std::tuple<int32_t, int32_t, int32_t>> children;
    for (size_t i = 1; i < prefixes.size(); ++i) {
      const auto [parent, token, word] = prefixes[i];
      need(parent >= 0 && size_t(parent) < i && is_token(token) && word >= kNoWord);
      depths_[i] = depths_[parent] + 1;
      children.emplace_back(parent, token, word);
    }
    std::sort(children.begin(), children.end());
    need(std::adjacent_find(children.begin(), children.end()) == children.end());
  }

  void check_alignments() {
    aligned_.resize(alignments.size());
    for (size_t i = 0; i < alignments.size(); ++i) {
      const AlignmentNode& node = alignments[i];
      need(node.parent >= -1 && node.parent < int32_t(i) && node.start >= 0 && node.start < head.frame);
      need(node.previous_end >= -1 && node.previous_end < node.start);
      const bool first = node.parent < 0;
      aligned_[i] = (first ? head.committed : aligned_[node.parent]) + 1;
      const int32_t end = node.previous_end + 1;
      if (first)
        need(end == (committed.empty() ? 0 : committed.back().end));
      else
        need(end > alignments[node.parent].start);
    }
  }

  void check_slots() const {
    std::vector<bool> used(prefixes.size());
    float best = kLogZero;
    for (const SavedSlot& slot : slots) {
      need(slot.node >= 0 && size_t(slot.node) < prefixes.size() && !used[slot.node]);
      need(slot.node > 0 || committed.empty());
      used[slot.node] = true;
      check_scores(slot);
      check_alignment(slot, slot.best_blank, slot.blank_alignment);
      check_alignment(slot, slot.best_token, slot.token_alignment);
      if (slot.blank_alignment < 0)
        need(slot.blank_end == -1);
      else
        need(slot.blank_end >= alignments[slot.blank_alignment].start && slot.blank_end < head.frame);
      check_context(slot.context);
      best = std::max(best, slot.total);
    }
    need(head.shift == best && head.settled <= stable_tokens());
    // Children come after their parents, so going backwards a node is marked as used before it is asked for.
    for (size_t i = prefixes.size(); i-- > 1; used[prefixes[i].parent] = true) need(used[i]);
  }

  // The sum over alignments and the best alignment: both are possible, or neither is.
  static void check_score(float sum, float best) {
    for (const float score : {sum, best}) {
      need(score == kLogZero || (score > 0.5f * kLogZero && score < -0.5f * kLogZero));
    }
    need(is_log_zero(sum) == is_log_zero(best));
  }

  static void check_scores(const SavedSlot& slot) {
    check_score(slot.blank, slot.best_blank);
    check_score(slot.token, slot.best_token);
    need(std::fabs(slot.gain) < 1e25f && std::fabs(slot.context_score) < 1e40);
    // `total` is at least the larger of the two scores, and at most their sum.
    const float larger = std::max(slot.blank, slot.token), slack = 1e-3f + 1e-5f * std::fabs(larger);
    need(!is_log_zero(slot.total) && slot.total >= larger - slack && slot.total <= larger + 0.7f + slack);
  }

  // The best alignment that ends in one kind (blank, token) has as many tokens as its prefix.
  void check_alignment(const SavedSlot& slot, float score, int32_t tail) const {
    need(tail >= -1 && tail < head.alignments);
    if (is_log_zero(score)) return need(tail == -1);
    need((tail < 0 ? head.committed : aligned_[tail]) == depths_[slot.node]);
  }

  static void check_context(const PrefixContext& context) {
    need(context.lexicon_node >= kUnknownWord && context.hotword_node >= 0);
    const NGramState& lm = context.lm;
    need(lm.length >= 0 && lm.length < kMaxOrder);
    for (int32_t i = 0; i < kMaxOrder - 1; ++i) {
      need(i < lm.length ? lm.words[i] >= 0 : lm.words[i] == 0);
      need(std::fabs(lm.backoffs[i]) < 1e20f);
    }
  }

  std::vector<int32_t> depths_, aligned_;  // how many tokens each prefix and each alignment has
};

}  // namespace asrkern
