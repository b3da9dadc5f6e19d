// Runs what kernels/ctc/cuda/ctc_beam_search.cu runs, by a team of threads of the CPU or by its own block of such
// threads. usage: ctc_beam_search PROBLEM RESULT; tests/kernels/test_ctc_beam_team.py writes one and reads the other:
// arrays, each behind its number of bytes.
#include "kernels/ctc/ctc_beam_search.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/ctc/context_arrays.h"
#include "kernels/ctc/cpu/array_checks.h"
#include "tests/kernels/cpp/cuda_block.h"
#include "tests/kernels/cpp/thread_team.h"
// After what stands in for CUDA.
#include "kernels/common/cuda/block_team.cuh"

namespace asrkern {

// Arrays are checked; the search by one thread is not among what runs here.
const cpu::CtcKernels& cpu::ctc_kernels() {
  static const CtcKernels kernels{nullptr, ascends, all_below, all_scores, masks_are_differences};
  return kernels;
}

namespace {

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::exit(1);
}

class Reader {
 public:
  explicit Reader(const char* path) : file_(std::fopen(path, "rb")) {
    if (!file_) fail("cannot open the problem");
  }
  ~Reader() { std::fclose(file_); }

  // The next array; it stays as long as the reader.
  template <class T>
  Array<T> next() {
    int64_t bytes = 0;
    if (std::fread(&bytes, sizeof bytes, 1, file_) != 1) fail("the problem is cut short");
    std::vector<uint64_t>& block = blocks_.emplace_back((bytes + 7) / 8 + 1);
    if (int64_t(std::fread(block.data(), 1, bytes, file_)) != bytes) fail("the problem is cut short");
    return {reinterpret_cast<const T*>(block.data()), bytes / int64_t(sizeof(T))};
  }

 private:
  std::FILE* file_;
  std::vector<std::vector<uint64_t>> blocks_;
};

template <class T>
void write(std::FILE* file, const std::vector<T>& values) {
  const int64_t bytes = int64_t(values.size() * sizeof(T));
  std::fwrite(&bytes, sizeof bytes, 1, file);
  std::fwrite(values.data(), 1, bytes, file);
}

void run(const char* problem, const char* result) {
  Reader reader(problem);
  const int64_t* ints = reader.next<int64_t>().data;
  const double* reals = reader.next<double>().data;
  CtcBeamSearch search{};
  search.rows = *ints++;
  search.frames = *ints++;
  const int64_t vocabulary = *ints++, threads = *ints++, tree_room = *ints++;
  const bool block = *ints++;
  search.log_probs = reader.next<float>().data;
  const Array<int64_t> lengths = reader.next<int64_t>();
  search.lengths = lengths.size ? lengths.data : nullptr;

  ContextArrays arrays{};
  arrays.token_kinds = reader.next<uint8_t>();
  const Array<float> unigrams = reader.next<float>();
  const Array<int64_t> ngrams = reader.next<int64_t>();
  const Array<float> codebook = reader.next<float>();
  search.lm.unigrams = reinterpret_cast<const NGramEntry*>(unigrams.data);
  search.lm.vocabulary = int32_t(unigrams.size / 2);
  if (codebook.size) {
    search.lm.codebook = codebook.data;
    search.lm.quantized = {reinterpret_cast<const uint64_t*>(ngrams.data), uint64_t(ngrams.size)};
  } else {
    search.lm.ngrams = {reinterpret_cast<const HashSlot*>(ngrams.data), uint64_t(ngrams.size / 2)};
  }
  search.lm.order = int32_t(*ints++);
  search.lm.bos = int32_t(*ints++);
  search.lm.eos = int32_t(*ints++);
  arrays.lm_tokens = reader.next<int32_t>();
  LexiconArrays& lexicon = arrays.lexicon;
  lexicon.edge_begin = reader.next<int32_t>();
  lexicon.edge_token = reader.next<int32_t>();
  lexicon.edge_target = reader.next<int32_t>();
  lexicon.edge_mask = reader.next<int64_t>();
  lexicon.word_begin = reader.next<int32_t>();
  lexicon.words = reader.next<int32_t>();
  lexicon.lm_words = reader.next<int32_t>();
  lexicon.look_ahead = reader.next<float>();
  lexicon.reach = reader.next<float>();
  HotwordArrays& hotwords = arrays.hotwords;
  hotwords.edge_begin = reader.next<int32_t>();
  hotwords.edge_token = reader.next<int32_t>();
  hotwords.edge_target = reader.next<int32_t>();
  hotwords.edge_mask = reader.next<int64_t>();
  hotwords.credit = reader.next<float>();
  hotwords.completed = reader.next<float>();
  hotwords.reach = reader.next<float>();
  arrays.texts = reader.next<int64_t>();
  arrays.alpha = *reals++;
  arrays.beta = *reals++;
  arrays.unk_score = *reals++;
  arrays.unknown_look_ahead = *reals++;
  arrays.begin_reach = *reals++;
  arrays.allow_unknown = *ints++;
  search.model = make_context(arrays, unigrams.size ? &search.lm : nullptr, int32_t(vocabulary));

  search.options.row.vocabulary = int32_t(vocabulary);
  search.options.row.blank = int32_t(*ints++);
  search.options.row.top_tokens = int32_t(*ints++);
  search.options.row.token_min_logp = float(*reals++);
  search.options.beam_prune_logp = float(*reals++);
  search.options.row.blank_penalty = float(*reals++);
  search.options.row.check_normalized = *ints++;
  search.options.beam_width = int32_t(*ints++);
  search.options.add = *ints++;
  search.options.history = int32_t(*ints++);
  const int64_t nbest = *ints++;
  check_options(search.options, nbest);

  search.plan =
      ctc_beam_plan(search.options.beam_width, vocabulary, search.frames, std::max<int64_t>(threads, 1), tree_room);
  // What nobody writes is seen.
  const size_t values = size_t(search.rows * nbest * search.frames), ranks = size_t(search.rows * nbest);
  std::vector<int32_t> tokens(values, -77), timesteps(2 * values, -77), words(values, -77), token_lengths(ranks, -77),
      errors(size_t(search.rows) * 2, -77);
  std::vector<float> confidences(values, -77);
  std::vector<double> scores(ranks, -77), am_scores(ranks, -77);
  search.output = {tokens.data(), timesteps.data(), words.data(), confidences.data(), token_lengths.data(),
                   scores.data(), am_scores.data(), nbest,        search.frames};
  search.errors = errors.data();
  const auto room = [](int64_t bytes) { return std::vector<uint64_t>(size_t(bytes / 8 + 2), 0xfefefefefefefefe); };
  const auto aligned = [](std::vector<uint64_t>& block) {
    return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(block.data()) + 15) / 16 * 16);
  };
  std::vector<uint64_t> arena = room(search.rows * search.plan.arena_bytes);
  search.arena = aligned(arena);
  for (int64_t row = 0; row < search.rows; ++row) {
    std::vector<uint64_t> fast = room(ctc_fast_bytes(search.plan));
    if (threads == 0) {
      SerialTeam team;
      ctc_search_row(team, search, row, aligned(fast));
    } else if (block) {
      cuda::BlockTeam::Parts parts;
      cuda_block::run(int(threads), [&] {
        cuda::BlockTeam team(parts);
        ctc_search_row(team, search, row, aligned(fast));
      });
    } else {
      ThreadTeam::run(int32_t(threads), [&](ThreadTeam& team) { ctc_search_row(team, search, row, aligned(fast)); });
    }
  }
  std::FILE* file = std::fopen(result, "wb");
  if (!file) fail("cannot open the result");
  write(file, tokens);
  write(file, timesteps);
  write(file, words);
  write(file, confidences);
  write(file, token_lengths);
  write(file, scores);
  write(file, am_scores);
  write(file, errors);
  std::fclose(file);
}

}  // namespace
}  // namespace asrkern

int main(int count, char** arguments) {
  if (count != 3) asrkern::fail("usage: ctc_beam_search PROBLEM RESULT");
  try {
    asrkern::run(arguments[1], arguments[2]);
  } catch (const std::exception& error) {
    asrkern::fail(error.what());
  }
}
