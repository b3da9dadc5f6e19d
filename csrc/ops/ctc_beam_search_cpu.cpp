#include "csrc/ops/ctc_beam_search.h"
#include "kernels/common/cpu/share_out.h"
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

CtcResultTensors search_rows(const Tensor& log_probs, const std::optional<Tensor>& lengths,
                             const CtcArguments& arguments) {
  const int64_t rows = log_probs.size(0), frames = log_probs.size(1), vocabulary = log_probs.size(2);
  const CtcResults results(log_probs, arguments.nbest);
  const std::vector<int64_t> counts =
      lengths ? read_lengths(*lengths, "lengths", rows, frames) : std::vector<int64_t>(size_t(rows), frames);
  const Tensor values = dense(log_probs);
  cpu::share_out(torch_threads(), rows, arguments.num_threads, [&](int64_t row) {
    const CtcOutput output = ctc_output_of_row(results.output, row);
    SerialTeam alone;
    ctc_clear(alone, output);
    const CtcUtterance found = search_utterance(arguments.model, arguments.options, int32_t(arguments.nbest),
                                                data<float>(values) + row * frames * vocabulary, counts[size_t(row)]);
    results.errors[2 * row] = found.error;
    results.errors[2 * row + 1] = int32_t(found.frame);
    for (size_t i = 0; i < found.hypotheses.size(); ++i) write(output, int64_t(i), found.hypotheses[i]);
  });
  return results.tensors;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement_with_fields<"ctc_beam_search", &asrkern::ctc_beam_search<&asrkern::search_rows>>(m);
}
