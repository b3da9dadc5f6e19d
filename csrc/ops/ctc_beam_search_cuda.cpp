#include <torch/csrc/stable/accelerator.h>

#include "csrc/ops/ctc_beam_search.h"
#include "kernels/ctc/cuda/ctc_beam_search.h"

namespace asrkern {
namespace {

void check_fits(const CtcBeamPlan& plan, int32_t device, int64_t beam_width, int64_t vocabulary) {
  int64_t room = 0;
  if (const int error = cuda::ctc_beam_search_shared_bytes(device, &room))
    throw std::runtime_error("asrkern::ctc_beam_search: no answer from the CUDA device, error " +
                             std::to_string(error));
  const int64_t needed = cuda::ctc_beam_search_shared_bytes(plan);
  if (needed > room)
    invalid("beam_width: ", beam_width, " prefixes with ", vocabulary, " tokens take ", needed,
            " bytes of a multiprocessor's shared memory, of which the device has ", room,
            "; expected fewer, or log_probs on the CPU (device=\"cpu\")");
}

CtcResultTensors ctc_beam_search(const Tensor& log_probs, const std::optional<Tensor>& lengths,
                                 const Tensor& token_kinds, const std::vector<Tensor>& language_model, int64_t lm_order,
                                 int64_t lm_bos, int64_t lm_eos, const std::optional<Tensor>& lm_tokens,
                                 const std::vector<Tensor>& lexicon, const std::vector<Tensor>& hotwords, double alpha,
                                 double beta, std::optional<double> unk_score, double unknown_look_ahead,
                                 double begin_reach, int64_t blank, int64_t beam_width, int64_t nbest,
                                 int64_t top_tokens, double token_min_logp, double beam_prune_logp,
                                 double blank_penalty, bool log_add, bool check_normalized, int64_t num_threads,
                                 const std::optional<Tensor>& texts, int64_t history) {
  check_batch(log_probs, lengths);
  const CtcArguments arguments(log_probs, token_kinds, language_model, lm_order, lm_bos, lm_eos, lm_tokens, lexicon,
                               hotwords, alpha, beta, unk_score, unknown_look_ahead, begin_reach, blank, beam_width,
                               nbest, top_tokens, token_min_logp, beam_prune_logp, blank_penalty, log_add,
                               check_normalized, texts, history);
  (void)num_threads;  // of the CPU
  const torch::stable::accelerator::DeviceGuard guard(log_probs.get_device_index());
  CtcBeamSearch search{};
  search.rows = log_probs.size(0);
  search.frames = log_probs.size(1);
  search.model = arguments.model;
  search.lm = arguments.tables;
  search.options = arguments.options;
  search.plan = ctc_beam_plan(beam_width, log_probs.size(2), search.frames);
  check_fits(search.plan, log_probs.get_device_index(), beam_width, log_probs.size(2));

  const Tensor values = dense(log_probs);
  const std::optional<Tensor> counts = dense(lengths);
  const CtcResults results(log_probs, nbest);
  Tensor arena = allocate(log_probs, {search.rows * search.plan.arena_bytes}, ScalarType::Byte);
  search.log_probs = data<float>(values);
  search.lengths = data_or_null<int64_t>(counts);
  search.arena = static_cast<char*>(arena.mutable_data_ptr());
  search.output = results.output;
  search.errors = results.errors;
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(log_probs.get_device_index(), &stream));
  if (const int error = cuda::ctc_beam_search(search, stream))
    throw std::runtime_error("asrkern::ctc_beam_search: the CUDA launch failed with error " + std::to_string(error));
  return results.tensors;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CUDA, m) { asrkern::implement<"ctc_beam_search", &asrkern::ctc_beam_search>(m); }
