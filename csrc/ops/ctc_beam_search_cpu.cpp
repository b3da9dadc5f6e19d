#include <atomic>
#include <exception>

#include "csrc/ops/ctc_beam_search.h"
#include "kernels/ctc/ctc_beam_stream.h"

namespace asrkern {
namespace {

void write(const CtcOutput& output, int64_t rank, const CtcHypothesis& hypothesis) {
  int64_t at = rank * output.frames;
  for (const CtcToken& token : hypothesis.tokens) {
    output.tokens[at] = token.token;
    output.timesteps[2 * at] = token.start;
    output.timesteps[2 * at + 1] = token.end;
    output.words[at] = token.word;
    output.confidences[at++] = token.confidence;
  }
  output.token_lengths[rank] = int32_t(hypothesis.tokens.size());
  output.scores[rank] = hypothesis.score;
  output.am_scores[rank] = hypothesis.am_score;
}

// Calls f(item) for every item on at most `threads` of torch's threads (0: all). A thread takes the next item when it
// is free. Rethrows the first exception.
template <class F>
void share_out(int64_t items, int64_t threads, const F& f) {
  const cpu::ThreadPool pool = torch_threads();
  const int64_t workers = threads > 0 && threads < pool.threads ? threads : pool.threads;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  cpu::parallel_for(pool, std::min(workers, items), [&](int64_t) {
    try {
      for (int64_t item; !failed && (item = next.fetch_add(1)) < items;) f(item);
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

CtcResultTensors search_rows(const Tensor& log_probs, const std::optional<Tensor>& lengths,
                             const CtcArguments& arguments) {
  const CtcBeamOptions& options = arguments.options;
  const int64_t rows = log_probs.size(0), frames = log_probs.size(1), vocabulary = log_probs.size(2);
  const CtcResults results(log_probs, arguments.nbest);
  const std::vector<int64_t> counts =
      lengths ? read_lengths(*lengths, "lengths", rows, frames) : std::vector<int64_t>(size_t(rows), frames);
  const Tensor values = dense(log_probs);
  share_out(rows, arguments.num_threads, [&](int64_t row) {
    const ContextModel& model = arguments.model_of(row);
    const CtcOutput output = ctc_output_of_row(results.output, row);
    int32_t* error = results.errors + 2 * row;
    SerialTeam alone;
    ctc_clear(alone, output);
    CtcBeamStream stream(model, options);
    const float* from = data<float>(values) + row * frames * vocabulary;
    for (int64_t t = 0; t < counts[row]; ++t) {
      error[0] = stream.step(model, options, from + t * vocabulary);
      error[1] = int32_t(t);
      if (error[0] != kCtcOk) return;
    }
    error[0] = kCtcOk;
    error[1] = -1;
    const std::vector<CtcHypothesis> hypotheses = stream.results(model, options, int32_t(arguments.nbest));
    for (size_t i = 0; i < hypotheses.size(); ++i) write(output, int64_t(i), hypotheses[i]);
  });
  return results.tensors;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"ctc_beam_search", &asrkern::ctc_beam_search<&asrkern::search_rows>>(m);
}
