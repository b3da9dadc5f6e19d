// Runs what kernels/ctc/cuda/ctc_beam_search.cu runs, by a team of threads of the CPU or by its own block of such
// threads. usage: ctc_beam_search PROBLEM RESULT; tests/kernels/test_ctc_beam_team.py writes one and reads the other:
// arrays, each behind its number of bytes.
#include "kernels/ctc/ctc_beam_search.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/ctc/context_arrays.h"
#include "kernels/ctc/cpu/array_checks.h"
#include "kernels/ctc/ctc_options.h"
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
  const int64_t* sizes = reader.next<int64_t>().data;
  CtcBeamSearch search{};
  search.rows = *sizes++;
  search.frames = *sizes++;
  const int64_t vocabulary = *sizes++, threads = *sizes++, tree_room = *sizes++;
  const bool block = *sizes++;
  search.lm.order = int32_t(*sizes++);
  search.lm.bos = int32_t(*sizes++);
  search.lm.eos = int32_t(*sizes++);
  const Array<double> context_numbers = reader.next<double>();
  const double* number = context_numbers.data;
  ContextArrays arrays{};
  arrays.numbers.each([&](const char*, auto& value) { value = *number++; });
  if (std::isnan(*arrays.numbers.unk_score)) arrays.numbers.unk_score.reset();
  number = reader.next<double>().data;
  CtcOptions options{};
  options.each([&](const char*, auto& value) { value = std::decay_t<decltype(value)>(*number++); });
  search.options = beam_options(options, vocabulary);
  const int64_t nbest = options.nbest;

  search.log_probs = reader.next<float>().data;
  const Array<int64_t> lengths = reader.next<int64_t>();
  search.lengths = lengths.size ? lengths.data : nullptr;
  const auto next = [&reader](auto& array) { array = reader.next<std::decay_t<decltype(*array.data)>>(); };
  next(arrays.token_kinds);
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
  next(arrays.lm_tokens);
  arrays.lexicon.each(next);
  arrays.hotwords.each(next);
  next(arrays.texts);
  search.model = make_context(arrays, unigrams.size ? &search.lm : nullptr, int32_t(vocabulary));

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
